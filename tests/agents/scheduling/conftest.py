"""A business with a calendar in a real PostgreSQL, and the scheduling tools as a model calls them."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from moorline_agents.scheduling.booking import Rules
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_agents.tools import Connection, ToolContext, ToolRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Pool


TEN = "2026-06-01T10:00"
RULES = Rules()


def starts(answer: dict[str, Any]) -> list[str]:
    """The starts of the slots in an answer or a refusal."""
    return [slot["start"] for slot in answer["slots"]]


class Business:
    """Its time is Monday 1 June 2026, 8:00 in Berlin, unless a test sets another."""

    def __init__(self, pool: Pool, *, schema: str = "public", rules: Rules = RULES) -> None:
        self.pool = pool
        self.now = datetime.fromisoformat("2026-06-01T08:00+02:00")
        tools = scheduling_tools(schema=schema, rules=rules)
        self.tools = {tool.name: tool for tool in tools}

    async def offers(self, service: str, minutes: int, *providers: str) -> None:
        await self.pool.execute("INSERT INTO appointment_services (name, minutes) VALUES ($1, $2)", service, minutes)
        await self.pool.execute(
            """INSERT INTO appointment_offers (provider_id, service_id)
               SELECT p.provider_id, s.service_id FROM appointment_providers p, appointment_services s
               WHERE s.name = $1 AND p.name = ANY ($2::text[])""",
            service,
            list(providers),
        )

    async def employs(
        self, provider: str, *, hours: str = "09:00-17:00", days: str = "12345", zone: str = "Europe/Berlin"
    ) -> None:
        await self.pool.execute("INSERT INTO appointment_providers (name, time_zone) VALUES ($1, $2)", provider, zone)
        opens, closes = hours.split("-")
        await self.pool.execute(
            """INSERT INTO appointment_hours (provider_id, weekday, opens, closes)
               SELECT provider_id, weekday, $2::text::time, $3::text::time
               FROM appointment_providers, unnest($4::integer[]) AS weekday WHERE name = $1""",
            provider,
            opens,
            closes,
            [int(day) for day in days],
        )

    async def closes(self, provider: str, day: str) -> None:
        await self.pool.execute(
            """INSERT INTO appointment_closures (provider_id, day)
               SELECT provider_id, $2 FROM appointment_providers WHERE name = $1""",
            provider,
            date.fromisoformat(day),
        )

    async def booked(self) -> list[tuple[str, str, str]]:
        """Device, provider and UTC start of every booked appointment, in order."""
        rows = await self.pool.fetch(
            """SELECT a.device_id, p.name,
                      to_char(lower(a.during) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI') AS starts
               FROM appointments a JOIN appointment_providers p ON p.provider_id = a.provider_id
               WHERE a.status = 'booked' ORDER BY 3, 2, 1"""
        )
        return [(row["device_id"], row["name"], row["starts"]) for row in rows]

    async def until_it_waits(self, task: asyncio.Task[Any]) -> None:
        """Returns when the server shows that a transaction is waiting for another one."""
        async with asyncio.timeout(10):
            while not await self.pool.fetchval(
                """SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                                  WHERE NOT l.granted AND a.datname = current_database())"""
            ):
                assert not task.done(), "it did not wait"

    def context(self, device: str) -> ToolContext:
        @asynccontextmanager
        async def transaction() -> AsyncIterator[Connection]:
            async with self.pool.acquire() as connection, connection.transaction():
                yield connection

        return ToolContext(device_id=device, now=self.now, values={}, transaction=transaction)

    async def call(self, device: str, tool: str, **arguments: Any) -> Any:
        """The result that the model is shown; it has to be JSON."""
        result = await self.tools[tool].call(json.dumps(arguments), self.context(device))
        return json.loads(json.dumps(result))

    async def refused(self, device: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """The refusal, as the model is shown it."""
        with pytest.raises(ToolRefused) as refused:
            await self.call(device, tool, **arguments)
        return refused.value.shown()

    async def refusal(self, device: str, tool: str, **arguments: Any) -> str:
        """The sentence of the refusal."""
        return str((await self.refused(device, tool, **arguments))["error"])


@pytest.fixture
async def business(dsn: str) -> AsyncIterator[Business]:
    """A business where nobody works yet."""
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=10)
    yield Business(pool)
    await pool.close()


@pytest.fixture
async def salon(business: Business) -> Business:
    """Ana cuts hair; Ana and Marc trim beards. Monday to Friday, 9 to 17 in Berlin."""
    await business.employs("Ana")
    await business.employs("Marc")
    await business.offers("Haircut", 30, "Ana")
    await business.offers("Beard trim", 15, "Ana", "Marc")
    return business
