"""Finding, booking, listing, moving and cancelling, on a real PostgreSQL."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from moorline_agents.errors import AgentError
from moorline_agents.scheduling.repository import STATEMENTS
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_agents.tools import Connection, ToolContext
from moorline_migrations import SCHEDULING, migrate
from moorline_migrations.errors import ConfigurationError
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.agents.scheduling.conftest import Business

TEN = "2026-06-01T10:00"


def starts(answer: dict[str, Any]) -> list[str]:
    return [slot["start"] for slot in answer["slots"]]


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
        for slot in answer["slots"]:
            booked = await salon.call("d", "book", service="Beard trim", start=slot["start"])
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
        ("2026-06-03T08:45", "closed", "30 minutes from 08:45 do not fit into that", "2026-06-03T09:00+02:00"),
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


async def test_another_schema_holds_its_own_appointments(salon: Business, dsn: str) -> None:
    await migrate(dsn, schema="branch", components=[SCHEDULING])
    branch = type(salon)(salon.pool, schema="branch")
    assert await branch.call("d", "find_slots") == {"services": []}
    assert len((await salon.call("d", "find_slots"))["services"]) == 2


def test_a_schema_that_cannot_be_is_refused_when_the_tools_are_made() -> None:
    with pytest.raises(ConfigurationError, match="cannot name a schema"):
        scheduling_tools(schema='public"; DROP TABLE appointments; --')


async def test_a_provider_in_an_unknown_time_zone_is_an_error_with_the_remedy(business: Business) -> None:
    for name, zone in {"Ana": "Mars/Olympus", "Bob": "../../etc/passwd", "Cyd": ""}.items():
        await business.employs(name, zone=zone)
        await business.offers(f"Haircut by {name}", 30, name)
        with pytest.raises(AgentError, match=r"correct appointment_providers\.time_zone"):
            await business.call("d", "find_slots")
        await business.pool.execute("UPDATE appointment_providers SET time_zone = 'UTC'")


async def test_the_search_for_what_is_taken_uses_the_index_of_the_exclusion_constraint(
    salon: Business,
) -> None:
    async with salon.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN " + load(STATEMENTS, "public")["busy"].sql, [1], salon.now, salon.now + timedelta(days=14)
        )
    assert any("appointments_one_at_a_time" in row[0] for row in plan)
