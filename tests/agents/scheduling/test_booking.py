"""Booking and listing, on a real PostgreSQL."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.agents.scheduling.conftest import TEN, starts

if TYPE_CHECKING:
    from tests.agents.scheduling.conftest import Business


async def test_names_are_found_whatever_their_case_and_spacing(salon: Business) -> None:
    answer = await salon.call("d", "book", service="  BEARD   trim ", provider="mARC", start=TEN)
    assert answer["appointment"]["service"] == "Beard trim"
    assert answer["appointment"]["provider"] == "Marc"


async def test_a_business_that_offers_nothing_says_so(business: Business) -> None:
    assert await business.call("d", "find_slots") == {"services": []}
    assert "No services are offered" in await business.refusal("d", "book", service="Haircut", start=TEN)


async def test_a_booking_is_kept_and_listed(salon: Business) -> None:
    answer = await salon.call("d", "book", service="Haircut", start=TEN)
    appointment = answer["appointment"]
    assert answer["status"] == "booked"
    assert re.fullmatch("[0-9a-f]{8}", appointment.pop("reference"))
    assert appointment == {
        "service": "Haircut",
        "provider": "Ana",
        "start": "2026-06-01T10:00+02:00",
        "end": "2026-06-01T10:30+02:00",
        "when": "Monday 1 June 2026, 10:00",
        "time_zone": "Europe/Berlin",
    }
    assert await salon.booked() == [("d", "Ana", "2026-06-01T08:00")]
    assert await salon.call("d", "list_appointments") == {
        "appointments": [answer["appointment"] | {"reference": await reference(salon, "d")}]
    }


async def reference(salon: Business, device: str) -> str:
    row = await salon.pool.fetchrow("SELECT appointment_id FROM appointments WHERE device_id = $1", device)
    assert row is not None
    return str(row["appointment_id"])[:8]


async def test_a_slot_goes_from_one_tool_to_the_next_as_it_is(salon: Business) -> None:
    found = await salon.call("d", "find_slots", service="Haircut", day="2026-06-05")
    booked = await salon.call("d", "book", service="Haircut", start=starts(found)[2])
    assert booked["appointment"]["start"] == starts(found)[2]


async def test_booking_the_same_again_books_nothing_more(salon: Business) -> None:
    first = await salon.call("d", "book", service="Beard trim", start=TEN)
    for more in ({}, {"provider": first["appointment"]["provider"]}):
        again = await salon.call("d", "book", service="beard trim", start=TEN + "+02:00", **more)
        assert again == {"status": "already booked", "appointment": first["appointment"]}
    assert len(await salon.booked()) == 1


async def test_what_was_cancelled_can_be_booked_again(salon: Business) -> None:
    first = await salon.call("d", "book", service="Haircut", start=TEN)
    await salon.call("d", "cancel")
    again = await salon.call("d", "book", service="Haircut", start=TEN)
    assert again["status"] == "booked"
    assert again["appointment"]["reference"] != first["appointment"]["reference"]


async def test_without_a_provider_anybody_who_is_free_is_booked(salon: Business) -> None:
    providers = [
        (await salon.call(device, "book", service="Beard trim", start=TEN))["appointment"]["provider"]
        for device in ("d1", "d2")
    ]
    assert providers == ["Ana", "Marc"]
    refused = await salon.refused("d3", "book", service="Beard trim", start=TEN)
    assert "10:00 with Ana is taken." in refused["error"]
    assert "10:00 with Marc is taken." in refused["error"]
    assert (refused["code"], refused["service"]) == ("taken", "Beard trim")
    assert refused["slots"][0] == {
        "start": "2026-06-01T10:15+02:00",
        "when": "Monday 1 June 2026, 10:15",
        "providers": ["Ana", "Marc"],
        "time_zone": "Europe/Berlin",
    }


@pytest.mark.parametrize(
    ("start", "code", "why", "free"),
    [
        ("2026-05-29T10:00", "past", "is in the past; it is now Monday 1 June 2026, 08:00", "2026-06-01T09:00+02:00"),
        ("2026-06-01T07:59", "past", "is in the past", "2026-06-01T09:00+02:00"),
        ("2026-06-02T10:00", "closed", "Ana is closed on Tuesday 2 June 2026", "2026-06-03T09:00+02:00"),
        ("2026-06-06T10:00", "closed", "Ana is closed on Saturday 6 June 2026", "2026-06-08T09:00+02:00"),
        ("2026-06-03T16:45", "closed", "Ana works 09:00 to 17:00 on Wednesday", "2026-06-04T09:00+02:00"),
        ("2026-06-03T08:45", "closed", "30 minutes from 08:45 are not within that", "2026-06-03T09:00+02:00"),
        ("2026-06-03T10:05", "off_grid", "begin at :00, :15, :30 and :45", "2026-06-03T10:15+02:00"),
    ],
)
async def test_a_time_that_cannot_be_is_refused_with_the_next_free_ones(
    salon: Business, start: str, code: str, why: str, free: str
) -> None:
    await salon.closes("Ana", "2026-06-02")
    refused = await salon.refused("d", "book", service="Haircut", start=start)
    assert why in refused["error"]
    assert refused["error"].endswith("Nothing was booked.")
    assert refused["code"] == code
    assert starts(refused)[0] == free
    assert len(refused["slots"]) > 1
    assert await salon.booked() == []


async def test_a_refusal_says_so_where_nothing_else_is_free(salon: Business) -> None:
    await salon.pool.execute("DELETE FROM appointment_hours")
    refused = await salon.refused("d", "book", service="Haircut", start=TEN)
    assert refused["error"].endswith("Nothing was booked. Nothing else is free in the 14 days from then.")
    assert refused["slots"] == []


@pytest.mark.parametrize("start", ["9999-12-31T23:45", "9999-12-31T23:45-12:00", "2028-06-01T10:00"])
async def test_a_time_too_far_ahead_is_refused(salon: Business, start: str) -> None:
    refused = await salon.refused("d", "book", service="Haircut", start=start)
    assert "is too far ahead; the last day that can be booked is Tuesday 1 June 2027" in refused["error"]
    assert (refused["code"], refused["slots"]) == ("too_far", [])


@pytest.mark.parametrize("start", ["0001-01-01T00:00", "0001-01-01T00:00+14:00"])
async def test_the_beginning_of_time_is_the_past(salon: Business, start: str) -> None:
    assert "is in the past" in await salon.refusal("d", "book", service="Haircut", start=start)


@pytest.mark.parametrize(
    "start",
    [
        "",
        "tomorrow",
        "2026-06-01",
        "10:00",
        "2026-13-01T10:00",
        "2026-06-31T10:00",
        "2026-06-01T24:30",
        1780300800,
        None,
    ],
)
async def test_a_start_that_is_no_local_time_is_refused_by_name(salon: Business, start: object) -> None:
    assert "wrong: start: " in await salon.refusal("d", "book", service="Haircut", start=start)


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("book", {"service": "Haircut", "start": TEN, "device_id": "victim"}),
        ("list_appointments", {"device_id": "victim"}),
        ("cancel", {"device_id": "victim"}),
        ("cancel", {"reference": "' OR true --"}),
        ("cancel", {"reference": ""}),
        ("find_slots", {"after": "10:00Z"}),
        ("find_slots", {"day": "soon"}),
    ],
)
async def test_other_bad_arguments_are_refused_too(salon: Business, tool: str, more: dict[str, Any]) -> None:
    assert f"{tool} was not run" in await salon.refusal("d", tool, **more)


async def test_a_skipped_hour_cannot_be_booked_and_a_repeated_one_is_asked_back(business: Business) -> None:
    await business.employs("Ana", hours="00:00-24:00", days="1234567")
    await business.offers("Haircut", 30, "Ana")
    business.now = datetime.fromisoformat("2026-03-20T12:00+01:00")
    refused = await business.refused("d", "book", service="Haircut", start="2026-03-29T02:30")
    assert "02:30 on Sunday 29 March 2026 does not exist in Europe/Berlin" in refused["error"]
    assert refused["code"] == "skipped_hour"
    assert starts(refused)[0] == "2026-03-29T03:00+02:00"

    business.now = datetime.fromisoformat("2026-10-20T12:00+02:00")
    refused = await business.refused("d", "book", service="Haircut", start="2026-10-25T02:30")
    assert "02:30 on Sunday 25 October 2026 happens twice in Europe/Berlin" in refused["error"]
    assert refused["code"] == "repeated_hour"
    assert [(slot["start"], slot["when"], slot["providers"]) for slot in refused["slots"]] == [
        ("2026-10-25T02:30+02:00", "Sunday 25 October 2026, 02:30 CEST", ["Ana"]),
        ("2026-10-25T02:30+01:00", "Sunday 25 October 2026, 02:30 CET", ["Ana"]),
    ]
    for offset in ("+01:00", "+02:00"):
        answer = await business.call("d", "book", service="Haircut", start=f"2026-10-25T02:30{offset}")
        assert answer["appointment"]["start"] == f"2026-10-25T02:30{offset}"
    assert await business.booked() == [("d", "Ana", "2026-10-25T00:30"), ("d", "Ana", "2026-10-25T01:30")]
    found = await business.call("d", "find_slots", service="Haircut", day="2026-10-25", after="02:00", before="03:00")
    assert starts(found) == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


async def test_times_are_local_to_each_provider(business: Business) -> None:
    await business.employs("Ana", zone="Europe/Berlin")
    await business.employs("Bob", zone="America/New_York")
    await business.offers("Consultation", 30, "Ana", "Bob")
    found = await business.call("d", "find_slots", service="Consultation", day="2026-06-01", after="16:30")
    assert [(slot["start"], slot["providers"]) for slot in found["slots"]] == [
        ("2026-06-01T16:30+02:00", ["Ana"]),
        ("2026-06-01T16:30-04:00", ["Bob"]),
    ]
    answers = [
        await business.call("d", "book", service="Consultation", start="2026-06-01T10:00", provider=provider)
        for provider in ("Ana", "Bob")
    ]
    assert [answer["status"] for answer in answers] == ["booked", "booked"]
    assert await business.booked() == [("d", "Ana", "2026-06-01T08:00"), ("d", "Bob", "2026-06-01T14:00")]


async def test_at_midnight_a_day_may_be_over_for_one_provider_only(business: Business) -> None:
    await business.employs("Ana", zone="Europe/Berlin")
    await business.employs("Bob", zone="America/New_York", hours="09:00-23:00")
    await business.offers("Consultation", 30, "Ana", "Bob")
    business.now = datetime.fromisoformat("2026-06-02T00:10+00:00")
    found = await business.call("d", "find_slots", service="Consultation", day="2026-06-01")
    assert starts(found)[0] == "2026-06-01T20:15-04:00"
    assert {provider for slot in found["slots"] for provider in slot["providers"]} == {"Bob"}
