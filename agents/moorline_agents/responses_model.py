"""The model that asks a server with OpenAI's Responses API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorline_agents.dialect import Body
from moorline_agents.response_stream import ResponseStream
from moorline_agents.responses_dialect import ResponsesDialect
from moorline_agents.server_model import ServerModel

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from openai import AsyncOpenAI, AsyncStream


class ResponsesModel(ServerModel[ResponsesDialect, ResponseStream]):
    """A model behind the OpenAI client's `responses`: one streamed response, whole or a `ModelError`.

    The server stores nothing of it (`store: false`). Its reasoning comes encrypted, is kept in the history, and goes
    back to the server and model that it came from, and to no other. All else is as in `ChatModel`.
    """

    api = "responses"

    def _prepare(self, client: AsyncOpenAI) -> None:
        _ = client.responses

    def _dialect(self, origin: str) -> ResponsesDialect:
        return ResponsesDialect(origin=origin)

    def _builder(self, dialect: ResponsesDialect, tools: AbstractSet[str]) -> ResponseStream:  # noqa: ARG002 - as it is
        return ResponseStream()

    def _shown(self, dialect: ResponsesDialect, answer: ResponseStream) -> ResponsesDialect:  # noqa: ARG002 - nothing
        return dialect

    async def _send(self, client: AsyncOpenAI, body: Body, timeout: float) -> AsyncStream[Any]:
        return await client.responses.create(
            model=body["model"], input="", extra_body=body, stream=True, timeout=timeout
        )
