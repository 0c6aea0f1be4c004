"""Moving and cancelling, on a real PostgreSQL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from moorline_agents.tools import Connection, ToolContext
from tests.agents.scheduling.conftest import TEN, starts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.agents.scheduling.conftest import Business


async def test_a_move_keeps_the_reference_and_frees_the_old_time(salon: Business) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    moved = await salon.call("d", "move", start="2026-06-02T11:00")
    assert moved["status"] == "moved"
    assert moved["appointment"]["reference"] == booked["reference"]
    assert moved["appointment"]["when"] == "Tuesday 2 June 2026, 11:00"
    assert await salon.booked() == [("d", "Ana", "2026-06-02T09:00")]
    assert (await salon.call("other", "book", service="Haircut", start=TEN))["status"] == "booked"


async def test_a_move_may_overlap_the_time_it_leaves(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", start=TEN)
    assert (await salon.call("d", "move", start="2026-06-01T10:15"))["status"] == "moved"
    assert await salon.booked() == [("d", "Ana", "2026-06-01T08:15")]


async def test_a_move_to_where_it_is_changes_nothing(salon: Business) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    answer = await salon.call("d", "move", start=TEN, reference=booked["reference"])
    assert answer == {"status": "already at that time", "appointment": booked}


async def test_a_move_to_another_provider(salon: Business) -> None:
    await salon.call("d", "book", service="Beard trim", start=TEN, provider="Ana")
    moved = await salon.call("d", "move", start=TEN, provider="Marc")
    assert moved["appointment"]["provider"] == "Marc"
    assert await salon.booked() == [("d", "Marc", "2026-06-01T08:00")]


async def test_a_move_to_a_taken_time_keeps_the_old_one_and_does_not_offer_it(salon: Business) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start="2026-06-01T10:30"))["appointment"]
    await salon.call("other", "book", service="Haircut", start=TEN)
    refused = await salon.refused("d", "move", start=TEN)
    assert "10:00 with Ana is taken. The appointment stays where it was." in refused["error"]
    assert starts(refused)[0] == "2026-06-01T11:00+02:00"
    assert await salon.call("d", "list_appointments") == {"appointments": [booked]}


@pytest.mark.parametrize("start", ["2026-05-01T10:00", "2026-06-06T10:00", "2026-06-01T03:00", "2026-06-01T10:05"])
async def test_a_move_to_a_time_that_cannot_be_keeps_the_old_one(salon: Business, start: str) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    assert "The appointment stays where it was." in await salon.refusal("d", "move", start=start)
    assert await salon.call("d", "list_appointments") == {"appointments": [booked]}


async def test_a_service_no_longer_offered_cannot_be_moved_but_cancelled(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", start=TEN)
    await salon.pool.execute(
        """DELETE FROM appointment_offers
           WHERE service_id = (SELECT service_id FROM appointment_services WHERE name = 'Haircut')"""
    )
    assert "There is no service 'Haircut'" in await salon.refusal("d", "move", start="2026-06-01T11:00")
    assert (await salon.call("d", "cancel"))["status"] == "cancelled"


async def test_a_cancelled_appointment_is_gone_and_cancelling_it_again_is_no_error(salon: Business) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    assert await salon.call("d", "cancel") == {"status": "cancelled", "appointment": booked}
    assert await salon.call("d", "list_appointments") == {"appointments": []}
    again = await salon.call("d", "cancel", reference=booked["reference"])
    assert again == {"status": "already cancelled", "appointment": booked}
    assert "was cancelled. Book a new one" in await salon.refusal("d", "move", start=TEN, reference=booked["reference"])
    assert "no upcoming appointment" in await salon.refusal("d", "cancel")
    assert (await salon.call("other", "book", service="Haircut", start=TEN))["status"] == "booked"


async def test_of_several_appointments_the_reference_says_which(salon: Business) -> None:
    first, second = [
        (await salon.call("d", "book", service="Haircut", start=start))["appointment"]
        for start in (TEN, "2026-06-01T11:00")
    ]
    for tool, more in {"cancel": {}, "move": {"start": "2026-06-02T10:00"}}.items():
        for wrong in ({}, {"reference": "00000000"}):
            refused = await salon.refused("d", tool, **more, **wrong)
            assert "not clear which appointment is meant" in refused["error"]
            assert refused["code"] == "which_appointment"
            assert refused["appointments"] == [first, second]
    answer = await salon.call("d", "cancel", reference=f"#{second['reference'].upper()} ")
    assert answer["appointment"] == second
    assert await salon.call("d", "list_appointments") == {"appointments": [first]}


async def test_what_has_begun_is_neither_listed_nor_changed(salon: Business) -> None:
    booked = (await salon.call("d", "book", service="Haircut", start=TEN))["appointment"]
    salon.now = datetime.fromisoformat("2026-06-01T10:00+02:00")
    assert await salon.call("d", "list_appointments") == {"appointments": []}
    assert "no upcoming appointment" in await salon.refusal("d", "cancel")
    for tool, more in {"cancel": {}, "move": {"start": "2026-06-02T10:00"}}.items():
        said = await salon.refusal("d", tool, reference=booked["reference"], **more)
        assert "has begun or is over" in said
    assert len(await salon.booked()) == 1


async def test_appointments_of_other_devices_are_neither_seen_nor_changed(salon: Business) -> None:
    theirs = (await salon.call("victim", "book", service="Haircut", start=TEN))["appointment"]
    before = await salon.booked()
    assert await salon.call("d", "list_appointments") == {"appointments": []}
    for tool, more in {"cancel": {}, "move": {"start": "2026-06-02T10:00"}}.items():
        for which in ({}, {"reference": theirs["reference"]}):
            assert await salon.refused("d", tool, **more, **which) == {
                "error": "This person has no upcoming appointment.",
                "code": "no_appointment",
            }
    said = str(await salon.refused("d", "book", service="Haircut", start=TEN))
    assert theirs["reference"] not in said
    assert "victim" not in said
    assert await salon.booked() == before


async def test_the_same_reference_on_two_devices_is_two_appointments(salon: Business) -> None:
    await salon.call("victim", "book", service="Haircut", start=TEN)
    await salon.call("d", "book", service="Haircut", start="2026-06-01T11:00")
    await salon.pool.execute("UPDATE appointments SET appointment_id = '00000000-0000-0000-0000-000000000001'")
    await salon.call("d", "move", start="2026-06-01T12:00", reference="00000000")
    assert await salon.booked() == [("victim", "Ana", "2026-06-01T08:00"), ("d", "Ana", "2026-06-01T10:00")]
    await salon.call("d", "cancel", reference="00000000")
    assert await salon.booked() == [("victim", "Ana", "2026-06-01T08:00")]


async def test_nothing_is_changed_when_the_transaction_does_not_commit(salon: Business) -> None:
    await salon.call("d", "book", service="Haircut", start=TEN)
    before = await salon.booked()
    async with salon.pool.acquire() as connection:

        @asynccontextmanager
        async def savepoint() -> AsyncIterator[Connection]:
            async with connection.transaction():
                yield connection

        context = ToolContext(device_id="d", now=salon.now, values={}, transaction=savepoint)
        for tool, arguments in {
            "book": '{"service": "Haircut", "start": "2026-06-01T12:00"}',
            "move": '{"start": "2026-06-01T12:00"}',
            "cancel": "{}",
        }.items():
            around = connection.transaction()
            await around.start()
            assert (await salon.tools[tool].call(arguments, context))["status"] in {
                "booked",
                "moved",
                "cancelled",
            }
            await around.rollback()
            assert await salon.booked() == before
