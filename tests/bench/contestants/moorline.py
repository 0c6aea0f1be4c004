"""Moorline as its users run it in a process of its own (`MOORLINE_TUNE_GC`): two agents. The first turn of a device
is routed and takes the lock; every later one goes straight to the agent that holds it."""

# ruff: noqa: ARG002 - a model is given more than a scripted one looks at

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from pydantic import BaseModel

from moorline import Moorline, Settings
from moorline_agents.agent import Agent
from moorline_agents.messages import Message, ModelAnswer, ToolCall, Usage
from moorline_agents.model import ToolChoice
from moorline_agents.tools import Tool, ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from tests.bench.contestants import Turn
from tests.bench.contestants.notes import NOTE, TABLE, TOOL
from tests.bench.conversation import answer

HOLDER = "orders"


class Model:
    """Answers after a fixed number of seconds, without HTTP; if it is offered the tool, it calls that first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
        options: object = None,  # revisions before there were any are measured too
    ) -> ModelAnswer:
        shown = sum(message["role"] == "user" for message in messages)
        if self._seconds:
            await asyncio.sleep(self._seconds)
        if messages[-1]["role"] == "user" and any(offered["function"]["name"] == TOOL for offered in tools):
            return ModelAnswer({"role": "assistant", "content": None, "tool_calls": [_call()]}, Usage(100, 20))
        return ModelAnswer({"role": "assistant", "content": answer(shown)}, Usage(100, 20))


def _call() -> ToolCall:
    arguments = json.dumps({"note": NOTE})
    return {"id": f"call_{uuid4().hex}", "type": "function", "function": {"name": TOOL, "arguments": arguments}}


class Note(BaseModel):
    note: str


@tool(name=TOOL, effect="database")
async def leave_note(arguments: Note, context: ToolContext) -> dict[str, str]:
    """Leave a note for the people in the shop."""
    async with context.transaction() as connection:
        await connection.execute(
            "INSERT INTO notes (device_id, note) VALUES ($1, $2)", context.device_id, arguments.note
        )
    return {"status": "left"}


def route(request: ModelRequest) -> ModelReply:
    """The router's model, which is asked in the first turn of a device only."""
    return ModelReply(calls=(Call(name="route", arguments={"agent": HOLDER}),))


def made(dsn: str, model_seconds: float, tools: Sequence[Tool] = (), *, redis_url: str | None = None) -> Moorline:
    """A runtime with the two agents; the first has the tools."""
    model = Model(model_seconds)
    agents = [
        Agent(
            name=HOLDER,
            description="orders and deliveries",
            instructions="You take orders.",
            tools=tools,
            model=model,
        ),
        Agent(
            name="concierge",
            description="everything else",
            instructions="You help.",
            keeps_session=False,
            model=model,
        ),
    ]
    settings = Settings(database_url=dsn, redis_url=redis_url, tune_gc=True)
    return Moorline(settings, agents=agents, client=lambda: rule_client(route))


@asynccontextmanager
async def with_tool(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """The same with a tool that every turn calls once."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(TABLE)
    await connection.close()
    async with opened(dsn, model_seconds, [leave_note]) as turn:
        yield turn


@asynccontextmanager
async def opened(dsn: str, model_seconds: float, tools: Sequence[Tool] = ()) -> AsyncIterator[Turn]:
    """Turns by `Moorline.run`, each with its own message ID, as from a webhook."""
    async with made(dsn, model_seconds, tools) as moorline:

        async def turn(device: str, text: str) -> str:
            reply = await moorline.run(text, {"device_id": device, "message_id": uuid4().hex})
            if reply.agent != HOLDER:
                raise ValueError(f"{reply.agent} answered instead of {HOLDER}")
            return reply

        yield turn
