"""Runtimes whose agent does what it is told, and the world that its tools affect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from moorline import Moorline, Reply, Settings
from moorline.errors import StaleTurn
from moorline_agents.agent import Agent
from moorline_agents.tools import Tool, ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client

from .claims import Connection, expire_lease


class Thing(BaseModel):
    """The argument of the tools."""

    what: str


class World:
    """The world that agents affect: rows in `bookings`, and calls to somebody outside.

    `book` writes a row; `ring` and `chime` call outside, and `chime` may be called twice. Each refuses what is in
    `refused`; a call for something in `failing` raises after it was made.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """What `ring` and `chime` were called for, with the idempotency key."""
        self.refused: set[str] = set()
        self.failing: set[str] = set()

    def tools(self) -> tuple[Tool, ...]:
        @tool(effect="database")
        async def book(thing: Thing, context: ToolContext) -> dict[str, str]:
            """Books it."""
            async with context.transaction() as connection:
                sql = "INSERT INTO bookings VALUES ($1, $2)"
                await connection.execute(sql, context.device_id, thing.what)
                self._check(thing.what)
            return {"booked": thing.what}

        async def ring(thing: Thing, context: ToolContext) -> dict[str, str]:
            """Calls somebody."""
            if thing.what in self.refused:
                raise ToolRefused(f"no {thing.what} today", code="out", things=[thing.what])
            self.calls.append((thing.what, context.idempotency_key))
            self._check(thing.what)
            return {"rung": thing.what}

        return (
            book,
            tool(effect="outside")(ring),
            tool(name="chime", effect="outside", idempotent=True)(ring),
        )

    def _check(self, what: str) -> None:
        if what in self.refused:
            raise ToolRefused(f"no {what} today", code="out", things=[what])
        if what in self.failing:
            raise LookupError(what)


def obedient(request: ModelRequest) -> ModelReply:
    """If a message's first word names a tool, calls it for each of the other words and then says the results; otherwise
    says how many messages it was shown."""
    shown = request.messages
    said = [index for index, message in enumerate(shown) if message["role"] == "user"]
    text = request.said[-1]
    results = [json.loads(message["content"] or "") for message in shown[said[-1] :] if message["role"] == "tool"]
    verb, *things = text.split()
    if verb not in request.functions:
        return ModelReply(text=f"{len(said)}: {text}")
    if not results:
        return ModelReply(calls=tuple(Call(name=verb, arguments={"what": thing}) for thing in things))
    return ModelReply(text=f"{len(said)}: {'; '.join(str(value) for result in results for value in result.values())}")


class Stall:
    """Rules that stop for ever, or until `go_on` is set, before they answer the message that `at` describes."""

    def __init__(self, at: Callable[[ModelRequest], bool] = lambda _: True) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._at = at

    async def __call__(self, request: ModelRequest) -> ModelReply:
        if self._at(request):
            self.reached.set()
            await self.go_on.wait()
        return obedient(request)


def after_tools(request: ModelRequest) -> bool:
    """Whether the model is shown the results of its calls."""
    return request.messages[-1]["role"] == "tool"


@asynccontextmanager
async def runtime(
    dsn: str,
    rules: Rules = obedient,
    *,
    world: World | None = None,
    agent: Agent | None = None,
    on_recovered: Callable[[str, Reply], None] | None = None,
    **settings: Any,
) -> AsyncIterator[Moorline]:
    """An open runtime with one agent, called `desk`."""
    tools = (world or World()).tools()
    desk = agent or Agent(name="desk", description="does it", instructions="desk", tools=tools)
    async with Moorline(
        Settings(database_url=dsn, **settings),
        agents=[desk],
        client=lambda: rule_client(rules),
        on_recovered=on_recovered,
    ) as moorline:
        yield moorline


async def say(
    moorline: Moorline, text: str, message_id: str | None = None, device: str = "d1", **context: Any
) -> Reply:
    """Sends a message of `d1`."""
    return await moorline.run(text, {"device_id": device, "message_id": message_id, **context})


async def crashed(
    stack: AsyncExitStack,
    dsn: str,
    connection: Connection,
    text: str,
    message_id: str,
    *,
    expired: str = "d1",
    **others: object,
) -> None:
    """Makes a worker run a message up to its last word and die. `expired` has the conversation."""
    stall = Stall(after_tools if text.split(maxsplit=1)[0] in ("book", "ring", "chime") else lambda _: True)
    dying = await stack.enter_async_context(runtime(dsn, stall, **others))  # type: ignore[arg-type]  # passed on
    task = asyncio.create_task(say(dying, text, message_id))

    async def stop() -> None:
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await task

    stack.push_async_callback(stop)
    await stall.reached.wait()
    await expire_lease(connection, expired)


async def execute(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Runs a statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


async def in_queue(dsn: str, number: int) -> None:
    """Returns when so many messages wait for their turn, in all workers together."""
    count = "SELECT count(*) FROM conversation_messages WHERE status = 'waiting' AND waiter_until > clock_timestamp()"
    async with asyncio.timeout(30):
        while (await execute(dsn, count))[0]["count"] != number:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def failed_burst(dsn: str, world: World) -> list[Reply | BaseException]:
    """What the callers of `m1` and `m2` get, which are answered in one turn that books a table and then fails."""
    stall = Stall(lambda request: request.messages[-1]["content"] == "hello")

    def failing(request: ModelRequest) -> Any:
        if after_tools(request):
            raise LookupError
        return stall(request)

    async with runtime(dsn, failing, world=world) as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m0"))
        await stall.reached.wait()
        burst = [asyncio.create_task(say(moorline, "book table", f"m{n}", on_busy="merge")) for n in (1, 2)]
        await in_queue(dsn, 2)
        stall.go_on.set()
        await running
        return await asyncio.gather(*burst, return_exceptions=True)
