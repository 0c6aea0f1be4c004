"""Moorline as its users run it in a process of its own (`MOORLINE_TUNE_GC`): two agents. The first turn of a device
is routed and takes the lock; every later one goes straight to the agent that holds it."""

# ruff: noqa: ARG002 - a model is given more than a scripted one looks at

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from moorline import Moorline, Settings
from moorline_agents.agent import Agent
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import ToolChoice
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from tests.bench.contestants import Turn
from tests.bench.conversation import answer

HOLDER = "orders"


class Model:
    """Answers after a fixed number of seconds, without HTTP."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
    ) -> ModelAnswer:
        shown = sum(message["role"] == "user" for message in messages)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return ModelAnswer({"role": "assistant", "content": answer(shown)}, Usage(100, 20))


def route(request: ModelRequest) -> ModelReply:
    """The router's model, which is asked in the first turn of a device only."""
    return ModelReply(calls=(Call(name="route", arguments={"agent": HOLDER}),))


@asynccontextmanager
async def runtime(dsn: str, model_seconds: float) -> AsyncIterator[Moorline]:
    """An open runtime with the two agents."""
    model = Model(model_seconds)
    agents = [
        Agent(name=HOLDER, description="orders and deliveries", instructions="You take orders.", model=model),
        Agent(
            name="concierge",
            description="everything else",
            instructions="You help.",
            keeps_session=False,
            model=model,
        ),
    ]
    settings = Settings(database_url=dsn, tune_gc=True)
    async with Moorline(settings, agents=agents, client=lambda: rule_client(route)) as moorline:
        yield moorline


@asynccontextmanager
async def opened(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """Turns by `Moorline.run`, each with its own message ID, as from a webhook."""
    async with runtime(dsn, model_seconds) as moorline:

        async def turn(device: str, text: str) -> str:
            reply = await moorline.run(text, {"device_id": device, "message_id": uuid4().hex})
            if reply.agent != HOLDER:
                raise ValueError(f"{reply.agent} answered instead of {HOLDER}")
            return reply

        yield turn
