"""Finding free times, on a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.agents.scheduling.conftest import TEN, starts

if TYPE_CHECKING:
    from tests.agents.scheduling.conftest import Business


async def test_without_a_service_it_tells_what_is_offered(salon: Business) -> None:
    assert await salon.call("d", "find_slots") == {
        "services": [
            {"service": "Beard trim", "minutes": 15, "providers": ["Ana", "Marc"]},
            {"service": "Haircut", "minutes": 30, "providers": ["Ana"]},
        ]
    }


async def test_the_earliest_slots_are_found(salon: Business) -> None:
    answer = await salon.call("d", "find_slots", service="haircut")
    assert answer["service"] == "Haircut"
    assert answer["minutes"] == 30
    assert answer["now"] == "Monday 1 June 2026, 08:00"
    assert answer["note"] is None
    assert answer["slots"][0] == {
        "start": "2026-06-01T09:00+02:00",
        "when": "Monday 1 June 2026, 09:00",
        "providers": ["Ana"],
        "time_zone": "Europe/Berlin",
    }
    assert [start[11:16] for start in starts(answer)] == [
        "09:00",
        "09:30",
        "10:00",
        "10:30",
        "11:00",
        "11:30",
    ]


async def test_slots_are_found_for_a_day_and_a_part_of_it(salon: Business) -> None:
    answer = await salon.call("d", "find_slots", service="Haircut", day="2026-06-03", after="15:30", before="16:30")
    assert starts(answer) == ["2026-06-03T15:30+02:00", "2026-06-03T16:00+02:00"]


async def test_all_who_are_free_at_a_time_are_named_and_one_can_be_chosen(salon: Business) -> None:
    await salon.call("other", "book", service="Beard trim", provider="Ana", start=TEN)
    answer = await salon.call("d", "find_slots", service="Beard trim", after="09:45", before="10:15")
    assert [(slot["start"][11:16], slot["providers"]) for slot in answer["slots"][:2]] == [
        ("09:45", ["Ana", "Marc"]),
        ("10:00", ["Marc"]),
    ]
    answer = await salon.call("d", "find_slots", service="Beard trim", provider="ANA", day="2026-06-01", after="10:00")
    assert starts(answer)[0] == "2026-06-01T10:15+02:00"


async def test_a_day_without_a_free_slot_is_answered_with_the_next_ones(salon: Business) -> None:
    await salon.closes("Ana", "2026-06-02")
    for day in ("2026-06-02", "2026-06-06"):
        answer = await salon.call("d", "find_slots", service="Haircut", day=day)
        assert "Nothing that fits is free on" in answer["note"]
        assert starts(answer)[0] > day


async def test_a_search_ends_somewhere(business: Business) -> None:
    await business.employs("Ana", days="")
    await business.offers("Haircut", 30, "Ana")
    answer = await business.call("d", "find_slots", service="Haircut")
    assert answer["slots"] == []
    assert "Nothing that fits is free in the 14 days from Monday 1 June 2026" in answer["note"]


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2026-05-31", "is in the past; today is Monday 1 June 2026"),
        ("2028-01-01", "too far ahead"),
        ("9999-12-31", "too far"),
    ],
)
async def test_a_day_that_cannot_be_booked_is_refused(salon: Business, day: str, said: str) -> None:
    assert said in await salon.refusal("d", "find_slots", service="Haircut", day=day)


async def test_every_slot_that_is_found_can_be_booked_up_to_the_last_day(salon: Business) -> None:
    last = (salon.now + timedelta(days=365)).date()
    for day in (last, last - timedelta(days=3)):
        answer = await salon.call("d", "find_slots", service="Beard trim", day=day.isoformat())
        for number, slot in enumerate(answer["slots"]):
            booked = await salon.call(f"d{number}", "book", service="Beard trim", start=slot["start"])
            assert booked["status"] == "booked"


async def test_unknown_names_are_answered_with_those_there_are(salon: Business) -> None:
    for tool, more in {"find_slots": {}, "book": {"start": TEN}}.items():
        assert await salon.refused("d", tool, service="Massage", **more) == {
            "error": "There is no service 'Massage'.",
            "code": "unknown_service",
            "services": ["Beard trim", "Haircut"],
        }
        assert await salon.refused("d", tool, service="Haircut", provider="Marc", **more) == {
            "error": "Nobody called 'Marc' offers Haircut.",
            "code": "unknown_provider",
            "service": "Haircut",
            "providers": ["Ana"],
        }


async def test_hours_past_midnight_are_found_and_booked_on_both_days(business: Business) -> None:
    await business.employs("Ana", hours="22:00-02:00", days="5")
    await business.offers("Consultation", 60, "Ana")
    found = await business.call("d", "find_slots", service="Consultation")
    assert starts(found)[:4] == [f"2026-06-{start}:00+02:00" for start in ("05T22", "05T23", "06T00", "06T01")]
    for device, start in {"d1": "2026-06-05T23:30", "d2": "2026-06-06T00:30"}.items():
        assert (await business.call(device, "book", service="Consultation", start=start))["status"] == "booked"
    refused = await business.refused("d3", "book", service="Consultation", start="2026-06-06T01:30")
    assert "works 22:00 to 02:00 on Saturday 6 June 2026" in refused["error"]
