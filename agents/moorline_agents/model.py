"""Models: what answers behind an agent, and the one that asks a chat-completions server.

Which messages and tools it is shown and what becomes of its answer is for the callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from moorline_agents.completion_stream import AnswerStream
from moorline_agents.model_errors import ModelError, model_errors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from openai import AsyncOpenAI
    from openai.resources.chat import AsyncCompletions

    from moorline_agents.messages import Message, ModelAnswer


ToolChoice = Literal["none"] | Mapping[str, Any]
"""No tool may be called; or the one tool that must be, as `{"type": "function", "function": {"name": …}}`."""


class Model(Protocol):
    """What answers behind an agent or the router: `ChatModel`, or an object of one's own.

    Messages, tools and answers have the form that chat-completions servers use, whatever is asked in the end. One
    object answers any number of turns at once. If it has a method `async def aclose()`, the runtime awaits that when it
    is closed; the object may be used again afterwards, by another runtime.
    """

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
    ) -> ModelAnswer:
        """One whole answer to `messages`, the system message first.

        The answer may call `tools`, as `tool_choice` says; None leaves that to the model. Whether the calls make sense
        is for the caller to find out. `on_text` is given the text piece by piece if it comes in pieces; if the answer
        fails after all, the caller withdraws what was shown.

        Raises `ModelError` when there is no answer. How long it may take is its own affair; it ends when it is
        cancelled.
        """


class ChatModel:
    """A chat-completions model behind the OpenAI client: one streamed completion, whole or a `ModelError`.

    `client` is the caller's, used as it is and never closed; or a function that makes one, called once in
    each event loop that asks (a connection pool belongs to the loop it was built in), in which case the
    clients are this object's to close. How often a failed request is tried again is the client's
    `max_retries`.

    `timeout` is the seconds a completion may take in all, retries and their waits included;
    `request_timeout` those a request may take to connect and to go on with its answer, by default half of
    that, so that a silent server is asked a second time.

    Building one imports and asks nothing.
    """

    def __init__(
        self,
        *,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI],
        model: str,
        timeout: float,
        request_timeout: float | None = None,
    ) -> None:
        self.name = model
        self._source = client
        self._timeout = timeout
        self._request_timeout = timeout / 2 if request_timeout is None else request_timeout
        self._clients: dict[asyncio.AbstractEventLoop, AsyncOpenAI] = {}

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> ModelAnswer:
        """One answer to `messages`, which may call `tools` (entries of the request's list of that name).

        `on_text` is given each piece of text as it arrives; if the completion then fails, what was shown has
        to be withdrawn. Tool calls are passed on as the model wrote them, unknown names and wrong arguments
        included. Raises `ModelError`.
        """
        request: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
        if tool_choice is not None:
            request["tool_choice"] = tool_choice
        with model_errors():
            # Importing the client, or its parts, may take longer than an answer; it is not the server's time.
            completions = (await self._client()).chat.completions
        answer = AnswerStream()
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline, aclosing(self._chunks(completions, request)) as chunks:
                async for chunk in chunks:
                    text = answer.add(chunk)
                    if text and on_text is not None:
                        on_text(text)
        except TimeoutError as error:
            if deadline.expired():
                raise ModelError.too_slow(self._timeout) from error
            raise
        return answer.finish()

    async def aclose(self) -> None:
        """Closes the client that was made for the running event loop, if there is one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _chunks(self, completions: AsyncCompletions, request: Mapping[str, Any]) -> AsyncGenerator[object, None]:
        with model_errors():
            stream = await completions.create(
                **request, stream=True, stream_options={"include_usage": True}, timeout=self._request_timeout
            )
            async with stream:
                async for chunk in stream:
                    yield chunk

    async def _client(self) -> AsyncOpenAI:
        if not callable(self._source):
            return self._source
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._source()
            await self._drop_dead()
        return client

    async def _drop_dead(self) -> None:
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            client = self._clients.pop(loop, None)
            # Its connections cannot be closed properly without their loop; marking the client closed keeps
            # it from trying that once more when it is collected.
            with suppress(Exception):
                if client is not None:
                    await client.close()
