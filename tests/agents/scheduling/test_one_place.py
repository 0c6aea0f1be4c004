"""A person is in one place at a time, and makes no more appointments in a day than the business allows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from moorline import Settings
from moorline.defaults import shipped_agents
from moorline_agents.agent import Agent
from moorline_agents.scheduling.agent import scheduling
from moorline_agents.scheduling.booking import Limits, Rules
from moorline_agents.tools import Connection, ToolContext, ToolRefused
from moorline_migrations.errors import ConfigurationError
from tests.agents.scheduling.conftest import TEN, Business, starts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.parametrize("start", [TEN, "2026-06-01T10:15"])
async def test_two_providers_at_once_are_refused_with_the_appointment_that_is_in_the_way(
    salon: Business, start: str
) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    refused = await salon.refused("d", "book", service="Beard trim", provider="Marc", start=start)
    assert refused["code"] == "elsewhere"
    assert f"another appointment then: Haircut with Ana on {booked['when']}" in refused["error"]
    assert refused["error"].endswith("Nothing was booked.")
    assert (await salon.call("e", "book", service="Beard trim", provider="Marc", start=start))["status"] == "booked"
    assert {(device, provider) for device, provider, _ in await salon.booked()} == {("d", "Ana"), ("e", "Marc")}


async def test_appointments_of_one_person_may_follow_each_other_without_a_break(salon: Business) -> None:
    for start, provider in {"2026-06-01T09:45": "Marc", TEN: "Ana", "2026-06-01T10:15": "Marc"}.items():
        answer = await salon.call("d", "book", service="Beard trim", provider=provider, start=start)
        assert answer["status"] == "booked"


async def test_where_the_person_is_elsewhere_is_offered_by_no_one(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", provider="Ana", start=TEN)
    found = await salon.call("d", "find_slots", service="Beard trim", day="2026-06-01", after="09:45", before="10:45")
    assert starts(found) == ["2026-06-01T09:45+02:00", "2026-06-01T10:30+02:00"]
    found = await salon.call("e", "find_slots", service="Beard trim", day="2026-06-01", after="09:45", before="10:45")
    assert len(starts(found)) == 4
    refused = await salon.refused("d", "book", service="Beard trim", provider="Marc", start=TEN)
    for start in starts(refused):
        assert (await salon.call("d", "book", service="Beard trim", start=start))["status"] == "booked"


async def test_a_move_to_where_the_person_is_elsewhere_is_refused(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", start=TEN)
    moved = (await salon.call("d", "book", service="Beard trim", provider="Marc", start="2026-06-01T12:00"))[
        "appointment"
    ]
    refused = await salon.refused("d", "move", reference=moved["reference"], start="2026-06-01T10:15")
    assert refused["code"] == "elsewhere"
    assert refused["error"].endswith("The appointment stays where it was.")
    assert ("d", "Marc", "2026-06-01T10:00") in await salon.booked()


async def test_what_was_cancelled_is_not_in_the_way(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", start=TEN)
    await salon.call("d", "cancel")
    assert (await salon.call("d", "book", service="Beard trim", provider="Marc", start=TEN))["status"] == "booked"


async def test_of_two_bookings_of_one_person_at_once_the_database_keeps_one(salon: Business, dsn: str) -> None:
    first = await asyncpg.connect(dsn)

    @asynccontextmanager
    async def held() -> AsyncIterator[Connection]:
        yield first

    context = ToolContext(device_id="d", now=salon.now, values={}, transaction=held)
    transaction = first.transaction()
    await transaction.start()
    await salon.tools["book"].call(f'{{"service": "Haircut", "start": "{TEN}"}}', context)
    second = asyncio.create_task(salon.call("d", "book", service="Beard trim", provider="Marc", start=TEN))
    await salon.until_it_waits(second)
    await transaction.commit()
    with pytest.raises(ToolRefused, match="another appointment then: Haircut with Ana"):
        await second
    await first.close()
    assert await salon.booked() == [("d", "Ana", "2026-06-01T08:00")]


async def test_the_database_alone_keeps_a_person_in_one_place(salon: Business) -> None:
    book = """INSERT INTO appointments (device_id, provider_id, service_id, during)
              SELECT $1, provider_id, 1, tstzrange('2026-06-01 10:00+02', '2026-06-01 10:30+02')
              FROM appointment_providers WHERE name = $2"""
    await salon.pool.execute(book, "d", "Ana")
    with pytest.raises(asyncpg.ExclusionViolationError, match="appointments_one_place_at_a_time"):
        await salon.pool.execute(book, "d", "Marc")
    await salon.pool.execute(book, "e", "Marc")


async def test_a_device_makes_so_many_appointments_in_a_day_and_no_more(salon: Business) -> None:
    small = Business(salon.pool, rules=Rules(limits=Limits(per_day=3)))
    days = [f"2026-06-{day:02}T10:00" for day in (1, 2, 3, 4)]
    first, *_ = [(await small.call("d", "book", service="Haircut", start=day))["appointment"] for day in days[:3]]
    refused = await small.refused("d", "book", service="Haircut", start=days[3])
    assert refused["code"] == "too_many"
    assert "has made 3 appointments in the last 24 hours" in refused["error"]
    assert len(await small.booked()) == 3
    assert (await small.call("d", "book", service="Haircut", start=days[0]))["status"] == "already booked"
    assert (await small.call("e", "book", service="Haircut", start=days[3]))["status"] == "booked"

    # Cancelling makes no room for more, but what there is can be moved.
    await small.call("d", "cancel", reference=first["reference"])
    assert (await small.refused("d", "book", service="Haircut", start=days[0]))["code"] == "too_many"
    await small.pool.execute("UPDATE appointments SET created_at = created_at - interval '25 hours'")
    reference = (await small.call("d", "list_appointments"))["appointments"][0]["reference"]
    for hour in (11, 12, 13, 14):
        moved = await small.call("d", "move", reference=reference, start=f"2026-06-05T{hour}:00")
        assert moved["status"] == "moved"

    # A day later there is room again; moves of older appointments have not used it up.
    for hour in (9, 10, 11):
        booked = await small.call("d", "book", service="Haircut", start=f"2026-06-08T{hour:02}:00")
        assert booked["status"] == "booked"


async def test_a_hundred_calls_of_a_hijacked_model_book_what_one_person_may(salon: Business) -> None:
    begin = datetime.fromisoformat("2026-06-01T09:00")
    booked = 0
    for number in range(100):
        start = begin + timedelta(days=number // 20, minutes=15 * (number % 20))
        try:
            await salon.call("d", "book", service="Beard trim", start=start.isoformat())
        except ToolRefused as refusal:
            assert refusal.code == "too_many"  # noqa: PT017
        else:
            booked += 1
    assert booked == 10


def test_a_business_where_nobody_may_book_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError, match="per_day is 0"):
        scheduling(limits=Limits(per_day=0))


async def test_the_agent_that_ships_follows_the_setting(salon: Business) -> None:
    agent, _ = shipped_agents(Settings(database_url="postgresql://nowhere", bookings_per_day=1))
    assert isinstance(agent, Agent)
    salon.tools = {tool.name: tool for tool in agent.own_tools}
    await salon.call("d", "book", service="Haircut", start=TEN)
    assert (await salon.refused("d", "book", service="Haircut", start="2026-06-02T10:00"))["code"] == "too_many"
