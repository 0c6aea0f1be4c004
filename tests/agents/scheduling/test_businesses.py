"""What a real business needs: time around a visit, groups, notice, a name and a note, and a view for its staff."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from moorline_agents.scheduling import Calendar, scheduling
from moorline_agents.scheduling.booking import Limits, Rules
from moorline_agents.scheduling.calendar import ProviderCalendar, Span, Visit
from moorline_migrations.errors import ConfigurationError
from tests.agents.scheduling.conftest import TEN, Business, starts


async def buffered(salon: Business, *, before: int = 0, after: int = 0) -> None:
    await salon.pool.execute(
        "UPDATE appointment_services SET buffer_before = $1, buffer_after = $2 WHERE name = 'Haircut'", before, after
    )


async def test_time_around_a_visit_is_nobody_elses(salon: Business) -> None:
    await buffered(salon, before=15, after=30)
    await salon.call("d1", "book", service="Haircut", start=TEN)
    for start in ("2026-06-01T09:15", "2026-06-01T09:30", "2026-06-01T10:30", "2026-06-01T11:00"):
        assert (await salon.refused("d2", "book", service="Haircut", start=start))["code"] == "taken", start
    await salon.call("d2", "book", service="Haircut", start="2026-06-01T11:15")
    beard = await salon.call("d3", "find_slots", service="Beard trim", provider="Ana", day="2026-06-01", after="09:30")
    assert starts(beard)[:2] == ["2026-06-01T09:30+02:00", "2026-06-01T12:15+02:00"]
    edge = await salon.call("d4", "book", service="Haircut", start="2026-06-01T16:30")
    assert edge["status"] == "booked", "clearing up may come after the hours"


async def test_a_group_has_as_many_places_as_its_capacity(business: Business) -> None:
    await business.employs("Room", hours="18:00-20:00")
    await business.offers("Yoga", 60, "Room")
    await business.pool.execute("UPDATE appointment_providers SET capacity = 3")
    six = "2026-06-01T18:00"
    booked = await asyncio.gather(*(business.call(f"d{n}", "book", service="Yoga", start=six) for n in range(3)))
    assert {each["status"] for each in booked} == {"booked"}
    refused = await business.refused("d4", "book", service="Yoga", start=six)
    assert refused["code"] == "taken"
    assert starts(refused)[0] == "2026-06-01T19:00+02:00"
    await business.call("d1", "cancel")
    assert (await business.call("d4", "book", service="Yoga", start=six))["status"] == "booked"
    await business.pool.execute("UPDATE appointment_providers SET capacity = 1")
    assert (await business.refused("d5", "book", service="Yoga", start=six))["code"] == "taken"


async def test_of_twenty_at_once_as_many_get_in_as_there_are_places(business: Business) -> None:
    await business.employs("Room", hours="18:00-19:00")
    await business.offers("Yoga", 60, "Room")
    await business.pool.execute("UPDATE appointment_providers SET capacity = 7")
    calls = (business.call(f"d{n}", "book", service="Yoga", start="2026-06-01T18:00") for n in range(20))
    came = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, dict) for each in came) == 7
    assert len(await business.booked()) == 7
    assert await business.pool.fetchval("SELECT count(DISTINCT seat) FROM appointments") == 7


def test_a_seat_is_free_for_the_whole_visit_or_not_at_all() -> None:
    at = [datetime.fromisoformat(f"2026-06-01T{hour:02}:00+00:00") for hour in range(24)]
    calendar = ProviderCalendar(
        provider="Room",
        zone=ZoneInfo("UTC"),
        openings=(),
        closures=frozenset(),
        seats=((Span(start=at[9], end=at[10]),), (Span(start=at[10], end=at[12]),)),
    )
    assert [*calendar.free_seats(Span(start=at[9], end=at[10]))] == [2]
    assert [*calendar.free_seats(Span(start=at[9], end=at[11]))] == []
    assert [*calendar.free_seats(Span(start=at[12], end=at[13]))] == [1, 2]
    assert Visit(timedelta(hours=1), after=timedelta(hours=1)).occupied(at[8]) == Span(start=at[8], end=at[10])


async def test_nothing_is_booked_sooner_or_later_than_the_rules_say(salon: Business) -> None:
    strict = Business(salon.pool, rules=Rules(lead_time=timedelta(hours=26), horizon=timedelta(days=7)))
    found = await strict.call("d", "find_slots", service="Haircut")
    assert starts(found)[0] == "2026-06-02T10:00+02:00"
    soon = await strict.refused("d", "book", service="Haircut", start="2026-06-02T09:45")
    assert soon["code"] == "too_soon"
    assert "Tuesday 2 June 2026, 10:00" in str(soon["error"])
    assert starts(soon)[0] == "2026-06-02T10:00+02:00"
    assert "too soon" in await strict.refusal("d", "find_slots", service="Haircut", day="2026-06-01")
    assert (await strict.refused("d", "book", service="Haircut", start="2026-06-08T09:00"))["code"] == "too_far"
    assert "Monday 8 June" in await strict.refusal("d", "find_slots", service="Haircut", day="2026-06-09")
    assert (await strict.call("d", "book", service="Haircut", start="2026-06-02T10:00"))["status"] == "booked"


async def test_a_device_has_no_more_to_come_than_the_limit(salon: Business) -> None:
    strict = Business(salon.pool, rules=Rules(limits=Limits(upcoming=2)))
    for start in (TEN, "2026-06-02T10:00"):
        await strict.call("d", "book", service="Haircut", start=start)
    refused = await strict.refused("d", "book", service="Haircut", start="2026-06-03T10:00")
    assert refused["code"] == "too_many"
    await strict.call("d", "move", start="2026-06-03T10:00", reference=await reference(strict, TEN))
    await strict.call("d", "cancel", reference=await reference(strict, "2026-06-02T10:00"))
    assert (await strict.call("d", "book", service="Haircut", start="2026-06-04T10:00"))["status"] == "booked"


async def reference(business: Business, start: str) -> str:
    listed = await business.call("d", "list_appointments")
    [found] = [each["reference"] for each in listed["appointments"] if str(each["start"]).startswith(start)]
    return str(found)


async def test_a_name_and_a_note_stay_with_an_appointment_until_its_person_is_erased(salon: Business) -> None:
    said = {"name": "Zoë", "note": "allergic to lavender"}
    salon.now = datetime.fromisoformat("2099-06-01T08:00+02:00")
    booked = await salon.call("d", "book", service="Haircut", start="2099-06-01T10:00", **said)
    moved = await salon.call("d", "move", start="2099-06-02T10:00")
    [listed] = (await salon.call("d", "list_appointments"))["appointments"]
    for shown in (booked["appointment"], moved["appointment"], listed):
        assert {name: shown[name] for name in said} == said
    await salon.pool.execute("SELECT scheduling_erase('d')")
    [row] = await salon.pool.fetch("SELECT device_id, name, note FROM appointments")
    assert tuple(row) == ("", None, None)


async def test_the_staff_see_a_day_of_everybody(salon: Business) -> None:
    await salon.employs("Nina", zone="America/New_York", hours="18:00-23:00")
    await salon.offers("Late cut", 30, "Nina")
    await salon.call("d1", "book", service="Haircut", start=TEN, name="Zoë")
    await salon.call("d2", "book", service="Beard trim", start="2026-06-01T09:00", provider="Marc")
    await salon.call("d3", "book", service="Late cut", start="2026-06-01T22:00")
    await salon.call("d4", "book", service="Haircut", start="2026-06-02T10:00")
    await salon.call("d2", "cancel")
    async with salon.pool.acquire() as connection:
        day = await Calendar(connection).appointments(date(2026, 6, 1))
    seen = [(each.device_id, each.appointment.provider.name, each.appointment.booked) for each in day]
    assert seen == [("d2", "Marc", False), ("d1", "Ana", True), ("d3", "Nina", True)]
    assert day[1].appointment.about.name == "Zoë"


async def test_a_day_is_each_providers_own_also_when_clocks_change(salon: Business) -> None:
    zones = {"Ana": "Europe/Berlin", "Nick": "Pacific/Kiritimati", "Paz": "Pacific/Pago_Pago"}
    for name in ("Nick", "Paz"):
        await salon.employs(name, zone=zones[name])
    await salon.pool.execute("DELETE FROM appointment_hours")
    await salon.pool.execute(
        "INSERT INTO appointment_hours SELECT p.provider_id, d, '00:00', '24:00' FROM appointment_providers p,"
        " generate_series(1, 7) d"
    )
    await salon.offers("Night cut", 30, *zones)
    for forward, repeated in (("2026-03-29", ()), ("2026-10-25", ("02:30+02:00", "02:30+01:00"))):
        day = date.fromisoformat(forward)
        salon.now = datetime.combine(day - timedelta(days=3), time(12), UTC)
        wanted: set[tuple[str, str]] = set()
        for name in zones:
            for hour in ("00:00", "03:00", "23:30", *(repeated if name == "Ana" else ())):
                start = f"{day}T{hour}"
                await salon.call(f"{name}{start}", "book", service="Night cut", provider=name, start=start)
                wanted.add((f"{name}{start}", name))
            for hour, other in (("23:30", day - timedelta(days=1)), ("00:00", day + timedelta(days=1))):
                start = f"{other}T{hour}"
                await salon.call(f"{name}{start}", "book", service="Night cut", provider=name, start=start)
        async with salon.pool.acquire() as connection:
            seen = await Calendar(connection).appointments(day)
        assert {(each.device_id, each.appointment.provider.name) for each in seen} == wanted
        assert [each.appointment.span.start for each in seen] == sorted(e.appointment.span.start for e in seen)


async def test_a_day_has_no_time_and_the_first_and_the_last_one_are_days_too(salon: Business) -> None:
    async with salon.pool.acquire() as connection:
        with pytest.raises(ValueError, match="by day"):
            await Calendar(connection).appointments(salon.now)
        assert [await Calendar(connection).appointments(day) for day in (date.min, date.max)] == [[], []]


@pytest.mark.parametrize("days", [-1, 7, 8])
def test_rules_by_which_nothing_could_be_booked_are_refused(days: int) -> None:
    with pytest.raises(ConfigurationError, match="lead_time"):
        scheduling(lead_time=timedelta(days=days), horizon=timedelta(days=7))
