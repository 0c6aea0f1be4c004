"""A runtime that is driven from outside its event loop, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from pydantic import BaseModel

from moorline import Moorline, MoorlineError, Settings
from moorline_agents.agent import Agent
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client


class Wish(BaseModel):
    what: str


@tool(effect="outside")
async def order(wish: Wish, context: ToolContext) -> dict[str, str]:
    """Orders something."""
    return {"ordered": wish.what}


def polite(request: ModelRequest) -> ModelReply:
    """Orders when told to, and otherwise says how many messages it was shown."""
    said = request.said
    if said[-1].startswith("order") and request.messages[-1]["role"] == "user":
        return ModelReply(calls=(Call(name="order", arguments={"what": said[-1]}),))
    return ModelReply(text=f"{len(said)} heard")


class World:
    """The runtime and its database."""

    def __init__(self, dsn: str, rules: Rules) -> None:
        self.dsn = dsn
        self.runner = asyncio.Runner()
        self.moorline = Moorline(
            Settings(database_url=dsn, model_retries=0, turn_timeout=20),
            agents=[Agent(name="a", description="everything", instructions="Answer.", tools=[order])],
            client=lambda: rule_client(rules),
        )

    def do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """What the work returns, or the error of ours that it raises; any other is raised."""

        async def done() -> Any:
            try:
                return await work()
            except MoorlineError as error:
                return error

        return self.runner.run(done())

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        async def fetched() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return [tuple(row) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close()

        return self.runner.run(fetched())


@contextmanager
def world(dsn: str, rules: Rules = polite) -> Iterator[World]:
    opened = World(dsn, rules)
    opened.runner.run(opened.moorline.__aenter__())
    try:
        yield opened
    finally:
        opened.runner.run(opened.moorline.close())
        opened.runner.close()
