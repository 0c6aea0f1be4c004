"""A person who talks to the rehearsed scheduling agent, whose tools work on the demo business in PostgreSQL."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from moorline_agents.control import END_SESSION, END_SESSION_SCHEMA, HAND_OVER, hand_over_schema
from moorline_agents.model import ChatModel
from moorline_agents.rehearsal import rehearsal_client
from moorline_agents.scheduling.demo import seed_demo
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_agents.tools import Connection, ToolContext, ToolRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Pool

    from moorline_agents.messages import Message

NOW = datetime.fromisoformat("2026-11-22T15:44:00+01:00")
SYSTEM = f"You make appointments.\nNow: {NOW.isoformat()} (Europe/Berlin), Sunday"
ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the agent did about a message of the person."""

    calls: list[tuple[str, dict[str, Any]]]
    text: str


class Person:
    """It is Sunday 22 November 2026, 15:44 in Berlin."""

    def __init__(self, pool: Pool, device: str) -> None:
        self._pool = pool
        self._device = device
        self._tools = {tool.name: tool for tool in scheduling_tools()}
        self._schemas = [
            *(tool.schema for tool in self._tools.values()),
            hand_over_schema({"concierge": "everything else"}),
            END_SESSION_SCHEMA,
        ]
        self._model = ChatModel(client=rehearsal_client, model="rehearsal", timeout=30)
        self._said: list[Message] = [{"role": "system", "content": SYSTEM}]

    async def say(self, *texts: str) -> Answer:
        """What the agent calls and then says; a hand-over ends the turn without a text."""
        self._said += ({"role": "user", "content": text} for text in texts)
        calls: list[tuple[str, dict[str, Any]]] = []
        for _ in range(ROUNDS):
            answer = (await self._model.complete(self._said, tools=self._schemas)).message
            self._said.append(answer)
            if not answer.get("tool_calls"):
                return Answer(calls=calls, text=answer["content"] or "")
            for call in answer["tool_calls"]:
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                calls.append((name, json.loads(arguments)))
                result = json.dumps(await self._result(name, arguments))
                self._said.append({"role": "tool", "tool_call_id": call["id"], "content": result})
            if calls[-1][0] == HAND_OVER:
                return Answer(calls=calls, text="")
        raise AssertionError(f"no end of calls: {calls}")

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Does something outside the conversation; the agent does not know of it."""
        return await self._tools[tool].call(json.dumps(arguments), self._context())

    async def booked(self) -> list[tuple[str, str, str]]:
        """Service, provider and local start of all booked appointments, by time."""
        rows = await self._pool.fetch(
            """SELECT s.name AS service, p.name AS provider,
                      to_char(lower(a.during) AT TIME ZONE p.time_zone, 'YYYY-MM-DD"T"HH24:MI') AS start
               FROM appointments a JOIN appointment_services s USING (service_id)
               JOIN appointment_providers p USING (provider_id)
               WHERE a.device_id = $1 AND a.status = 'booked' ORDER BY lower(a.during)""",
            self._device,
        )
        return [(row["service"], row["provider"], row["start"]) for row in rows]

    async def aclose(self) -> None:
        await self._model.aclose()

    async def _result(self, name: str, arguments: str) -> Any:
        if name in (HAND_OVER, END_SESSION):
            return {"done": True}
        try:
            return await self._tools[name].call(arguments, self._context())
        except ToolRefused as refusal:
            return refusal.shown()

    def _context(self) -> ToolContext:
        @asynccontextmanager
        async def transaction() -> AsyncIterator[Connection]:
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

        return ToolContext(device_id=self._device, now=NOW, values={}, transaction=transaction)


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """The demonstration's database; the business is closed at Christmas, whatever year this runs in."""
    async with asyncpg.create_pool(dsn, min_size=0, max_size=5) as opened:
        await seed_demo(opened)
        await opened.execute(
            """INSERT INTO appointment_closures (provider_id, day)
               SELECT provider_id, date '2026-12-25' FROM appointment_providers ON CONFLICT DO NOTHING"""
        )
        yield opened


@pytest.fixture
async def person(pool: Pool) -> AsyncIterator[Person]:
    person = Person(pool, "person")
    yield person
    await person.aclose()
