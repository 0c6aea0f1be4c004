"""The OpenAI Agents SDK with its session on SQLAlchemy and asyncpg.

It does not remember which agent holds a conversation, so we assume its caller does: each turn goes straight to it.
"""

# ruff: noqa: ARG002 - a model is given more than a scripted one looks at

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.extensions.memory import SQLAlchemySession
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests.bench.contestants import CONNECTIONS, Turn
from tests.bench.conversation import answer


class Scripted(Model):
    """Answers after a fixed number of seconds, without HTTP."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def get_response(
        self, system_instructions: str | None, input: str | list[Any], *args: Any, **kwargs: Any
    ) -> ModelResponse:
        items = [{"role": "user"}] if isinstance(input, str) else input
        shown = sum(item.get("role") == "user" for item in items)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        text = ResponseOutputText(text=answer(shown), type="output_text", annotations=[])
        message = ResponseOutputMessage(
            id="scripted", content=[text], role="assistant", status="completed", type="message"
        )
        usage = Usage(requests=1, input_tokens=100, output_tokens=20, total_tokens=120)
        return ModelResponse(output=[message], usage=usage, response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError  # the base class requires it; nothing is streamed here


@asynccontextmanager
async def opened(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """Opened with its tables made, and without traces, which would be sent to OpenAI."""
    set_tracing_disabled(True)
    agent = Agent(name="orders", instructions="You take orders.", model=Scripted(model_seconds))
    url = make_url(dsn).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    await SQLAlchemySession("setup", engine=engine, create_tables=True).get_items()

    async def turn(device: str, text: str) -> str:
        result = await Runner.run(agent, text, session=SQLAlchemySession(device, engine=engine))
        return str(result.final_output)

    try:
        yield turn
    finally:
        await engine.dispose()
