"""Many devices at once, each on a connection of its own: the exclusion constraint has the last word."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from moorline_agents.tools import Connection, ToolContext, ToolRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.agents.scheduling.conftest import Business

TEN = "2026-06-01T10:00"
DEVICES = [f"d{number}" for number in range(24)]


async def attempt(business: Business, device: str, tool: str, **arguments: Any) -> dict[str, Any] | ToolRefused:
    """The answer, or the refusal."""
    try:
        answer: dict[str, Any] = await business.call(device, tool, **arguments)
    except ToolRefused as refusal:
        return refusal
    return answer


def offered(refusal: ToolRefused) -> list[str]:
    return [slot["start"] for slot in refusal.details["slots"]]


async def test_of_many_who_want_one_slot_one_gets_it_and_the_others_free_ones(salon: Business) -> None:
    answers = await asyncio.gather(
        *(attempt(salon, device, "book", service="Haircut", start=TEN) for device in DEVICES)
    )
    won = [answer for answer in answers if isinstance(answer, dict)]
    lost = [answer for answer in answers if isinstance(answer, ToolRefused)]
    assert len(won) == 1
    assert won[0]["status"] == "booked"
    assert len(await salon.booked()) == 1
    for refusal in lost:
        assert refusal.code == "taken"
        assert len(offered(refusal)) == 6
    for start in {start for refusal in lost for start in offered(refusal)}:
        assert (await salon.call("late", "book", service="Haircut", start=start))["status"] == "booked"


async def test_without_a_provider_as_many_win_as_there_are_providers(salon: Business) -> None:
    answers = await asyncio.gather(
        *(attempt(salon, device, "book", service="Beard trim", start=TEN) for device in DEVICES)
    )
    won = [answer["appointment"]["provider"] for answer in answers if isinstance(answer, dict)]
    assert sorted(won) == ["Ana", "Marc"]


async def test_losers_who_take_what_they_are_offered_all_get_an_appointment_in_the_end(
    salon: Business,
) -> None:
    async def until_booked(device: str) -> str:
        start = TEN
        while isinstance(answer := await attempt(salon, device, "book", service="Haircut", start=start), ToolRefused):
            start = offered(answer)[0]
        return str(answer["appointment"]["start"])

    starts = await asyncio.gather(*(until_booked(device) for device in DEVICES))
    assert len(set(starts)) == len(DEVICES)
    assert len(await salon.booked()) == len(DEVICES)


async def test_of_many_who_move_to_one_slot_one_does_and_the_others_stay(salon: Business) -> None:
    devices = DEVICES[:12]
    free = datetime.fromisoformat("2026-06-02T09:00")
    for number, device in enumerate(devices):
        start = (free + number * timedelta(minutes=30)).isoformat()
        await salon.call(device, "book", service="Haircut", start=start)
    before = {(device, start) for device, _, start in await salon.booked()}
    answers = await asyncio.gather(*(attempt(salon, device, "move", start=TEN) for device in devices))
    after = {(device, start) for device, _, start in await salon.booked()}
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert len(before & after) == len(devices) - 1
    assert [start for _, start in after - before] == ["2026-06-01T08:00"]


@pytest.mark.parametrize("_round", range(5))
async def test_two_who_want_to_swap_both_stay_and_neither_waits_for_the_other(salon: Business, _round: int) -> None:
    await salon.call("d1", "book", service="Haircut", start=TEN)
    await salon.call("d2", "book", service="Haircut", start="2026-06-01T11:00")
    before = await salon.booked()
    answers = await asyncio.gather(
        attempt(salon, "d1", "move", start="2026-06-01T11:00"), attempt(salon, "d2", "move", start=TEN)
    )
    assert all(isinstance(answer, ToolRefused) and answer.code == "taken" for answer in answers)
    assert await salon.booked() == before


@pytest.mark.parametrize("commits", [True, False])
async def test_who_meets_an_open_booking_waits_for_how_it_ends(salon: Business, dsn: str, commits: bool) -> None:
    first = await asyncpg.connect(dsn)

    @asynccontextmanager
    async def held() -> AsyncIterator[Connection]:
        yield first

    context = ToolContext(device_id="d1", now=salon.now, values={}, transaction=held)
    transaction = first.transaction()
    await transaction.start()
    await salon.tools["book"].call(f'{{"service": "Haircut", "start": "{TEN}"}}', context)
    second = asyncio.create_task(attempt(salon, "d2", "book", service="Haircut", start=TEN))
    await salon.until_it_waits(second)
    await (transaction.commit() if commits else transaction.rollback())
    answer = await second
    await first.close()
    assert isinstance(answer, ToolRefused) is commits
    assert not isinstance(answer, ToolRefused) or offered(answer)[0] == "2026-06-01T10:30+02:00"
    assert [device for device, _, _ in await salon.booked()] == (["d1"] if commits else ["d2"])


async def test_booking_moving_and_cancelling_at_random_loses_and_doubles_nothing(salon: Business) -> None:
    slots = [
        (datetime.fromisoformat("2026-06-01T09:00") + number * timedelta(minutes=15)).isoformat() for number in range(8)
    ]

    async def live(device: str) -> set[str]:
        """The appointments that this device was told it has."""
        rng = random.Random(device)  # noqa: S311
        mine: dict[str, str] = {}
        for _ in range(12):
            start, service = rng.choice(slots), rng.choice(["Haircut", "Beard trim"])
            if mine and rng.random() < 0.6:
                reference = rng.choice(sorted(mine))
                if rng.random() < 0.6:
                    answer = await attempt(salon, device, "move", start=start, reference=reference)
                else:
                    answer = await attempt(salon, device, "cancel", reference=reference)
            else:
                answer = await attempt(salon, device, "book", service=service, start=start)
            if isinstance(answer, ToolRefused):
                continue
            appointment = answer["appointment"]
            mine[appointment["reference"]] = f"{appointment['provider']} {appointment['start']}"
            if answer["status"] == "cancelled":
                del mine[appointment["reference"]]
        return set(mine.values())

    devices = DEVICES[:10]
    told = dict(zip(devices, await asyncio.gather(*map(live, devices)), strict=True))
    for device in devices:
        listed = (await salon.call(device, "list_appointments"))["appointments"]
        assert {f"{one['provider']} {one['start']}" for one in listed} == told[device]
    assert len(await salon.booked()) == sum(map(len, told.values()))
