"""The made-up catalogue is filled once, however many processes start at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from moorline_agents.scheduling.demo import TIME_ZONE, seed_demo
from moorline_migrations import SCHEDULING, migrate

if TYPE_CHECKING:
    from tests.agents.scheduling.conftest import Business

TABLES = ["services", "providers", "offers", "hours", "closures"]


async def counts(business: Business, schema: str = "public") -> dict[str, int]:
    return {
        table: await business.pool.fetchval(f"SELECT count(*) FROM {schema}.appointment_{table}")  # noqa: S608
        for table in TABLES
    }


async def test_an_empty_catalogue_is_filled_and_every_service_can_be_booked(business: Business) -> None:
    async with business.pool.acquire() as connection:
        assert await seed_demo(connection) is True
    services = (await business.call("d", "find_slots"))["services"]
    assert [service["service"] for service in services] == [
        "Beard trim",
        "Colouring",
        "Consultation",
        "Dental check-up",
        "Haircut",
    ]
    for service in services:
        found = await business.call("d", "find_slots", service=service["service"])
        assert len(found["slots"]) == 6
        assert {slot["time_zone"] for slot in found["slots"]} == {TIME_ZONE}
        booked = await business.call("d", "book", service=service["service"], start=found["slots"][0]["start"])
        assert booked["status"] == "booked"


async def test_filling_it_again_changes_nothing(business: Business) -> None:
    async with business.pool.acquire() as connection:
        await seed_demo(connection)
        before = await counts(business)
        assert await seed_demo(connection) is False
    assert await counts(business) == before
    assert all(before.values())


async def test_a_catalogue_of_ones_own_stays_as_it_is(salon: Business) -> None:
    before = await counts(salon)
    async with salon.pool.acquire() as connection:
        assert await seed_demo(connection) is False
    assert await counts(salon) == before


@pytest.mark.parametrize("commits", [True, False])
async def test_of_two_at_once_one_waits_and_fills_what_the_other_did_not(business: Business, commits: bool) -> None:
    async def seed() -> bool:
        async with business.pool.acquire() as connection:
            return await seed_demo(connection)

    async with business.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        assert await seed_demo(first) is True
        alone = {table: await first.fetchval(f"SELECT count(*) FROM appointment_{table}") for table in TABLES}  # noqa: S608
        second = asyncio.create_task(seed())
        await business.until_it_waits(second)
        await (transaction.commit() if commits else transaction.rollback())
    assert await second is not commits
    assert await counts(business) == alone


async def test_it_fills_the_schema_it_is_told(business: Business, dsn: str) -> None:
    await migrate(dsn, schema="branch", components=[SCHEDULING])
    async with business.pool.acquire() as connection:
        assert await seed_demo(connection, schema="branch") is True
    assert not any((await counts(business)).values())
    assert all((await counts(business, "branch")).values())
