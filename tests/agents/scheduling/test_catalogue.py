"""A catalogue comes from a file, as a whole or not at all, and goes back into one."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING

import pytest

from moorline_agents.scheduling.catalogue_file import Catalogue
from moorline_agents.scheduling.catalogue_store import CatalogueStore, Replaced
from moorline_migrations.errors import ConfigurationError
from tests.agents.scheduling.conftest import Business, starts

if TYPE_CHECKING:
    from collections.abc import Mapping

CLINIC = """
time_zone: Europe/Berlin
services:
  Sprechstunde: {minutes: 20, buffer_after: 10}
  Impfung: {minutes: 10}
  Rückenkurs: {minutes: 60}
providers:
  Dr. Özil:
    offers: [Sprechstunde, Impfung]
    hours:
      monday-thursday: [08:00-12:00, 14:00-18:00]
      friday: 08:00-13:00
    breaks: 10:00-10:15
    closures: 2026-06-04
  Kursraum:
    offers: Rückenkurs
    capacity: 8
    hours: {wednesday: 18:00-20:00}
  Nachtdienst:
    offers: [Impfung]
    time_zone: Europe/London
    hours: {saturday: 22:00-02:00}
    breaks: [00:30-01:00]
closures: [2026-12-24/2026-12-26, 2027-01-01]
"""

SMALLEST = """
time_zone: UTC
services: {Cut: {minutes: 30}}
providers: {Ana: {offers: Cut, hours: {monday: 09:00-17:00}}}
"""


SHORT_BREAKS = ", ".join(f"{9 + n // 4:02}:{n % 4}5-{9 + n // 4:02}:{n % 4}6" for n in range(24))


async def offered(business: Business, text: str) -> Replaced:
    async with business.pool.acquire() as connection, connection.transaction():
        return await CatalogueStore(connection).replace(Catalogue.of_yaml(text), now=business.now)


async def exported(business: Business) -> str:
    async with business.pool.acquire() as connection:
        return (await CatalogueStore(connection).read()).to_yaml()


async def test_what_the_file_says_can_be_booked(business: Business) -> None:
    await offered(business, CLINIC)
    found = await business.call("d", "find_slots", service="sprechstunde", day="2026-06-02", after="09:30")
    assert starts(found)[:2] == ["2026-06-02T09:30+02:00", "2026-06-02T10:15+02:00"], "there is a break at ten"
    closed = {"service": "Impfung", "provider": "dr. özil", "start": "2026-06-04T09:00"}
    assert "closed" in await business.refusal("d", "book", **closed)
    night = await business.call("d", "book", service="Impfung", start="2026-06-07T01:00", provider="Nachtdienst")
    assert night["appointment"]["time_zone"] == "Europe/London"


async def test_an_export_makes_the_same_catalogue_again(business: Business) -> None:
    await offered(business, CLINIC)
    once = await exported(business)
    await offered(business, SMALLEST)
    [only] = (await business.call("d", "find_slots"))["services"]
    assert only == {"service": "Cut", "minutes": 30, "providers": ["Ana"]}
    await offered(business, once)
    assert await exported(business) == once
    assert Catalogue.of_yaml(once).to_yaml() == once
    assert "2026-12-24/2026-12-26" in once


async def test_appointments_stay_and_those_that_no_longer_fit_are_named(business: Business) -> None:
    await offered(business, SMALLEST)
    for number, start in enumerate(("2026-06-01T10:00", "2026-06-08T15:00"), 1):
        await business.call(f"d{number}", "book", service="Cut", start=start)
    done = await offered(business, SMALLEST.replace("17:00", "12:00"))
    assert [each.device_id for each in done.misfits] == ["d2"]
    done = await offered(business, SMALLEST.replace("Cut", "Colour"))
    assert [each.device_id for each in done.misfits] == ["d1", "d2"]
    assert [device for device, *_ in await business.booked()] == ["d1", "d2"]
    assert await business.pool.fetchval("SELECT count(*) FROM appointment_services") == 2
    assert "Cut" not in await exported(business)


def test_a_break_past_midnight_meets_the_hours_of_the_next_day_too() -> None:
    hours = "monday: 20:00-24:00, tuesday: 00:00-02:00}, breaks: 23:00-01:00"
    (ana,) = Catalogue.of_yaml(SMALLEST.replace("monday: 09:00-17:00}", hours)).providers.values()
    assert [(each.weekday, each.opens, each.closes) for each in ana.openings] == [(1, 1200, 1380), (2, 60, 120)]


async def test_of_two_imports_at_once_one_is_what_is_offered(business: Business) -> None:
    other = SMALLEST.replace("Cut", "Colour").replace("Ana", "Marc")
    async with business.pool.acquire() as connection, connection.transaction():
        await CatalogueStore(connection).replace(Catalogue.of_yaml(SMALLEST), now=business.now)
        second = asyncio.create_task(offered(business, other))
        await business.until_it_waits(second)
    await second
    assert await exported(business) == Catalogue.of_yaml(other).to_yaml()


async def test_an_import_waits_for_a_booking_and_names_it(business: Business) -> None:
    await offered(business, SMALLEST)
    other = SMALLEST.replace("Cut", "Colour").replace("Ana", "Marc")
    async with business.pool.acquire() as connection, connection.transaction():
        within = replace(business.context("d1"), transaction=lambda: nullcontext(connection))
        await business.tools["book"].call('{"service": "Cut", "start": "2026-06-01T10:00"}', within)
        importing = asyncio.create_task(offered(business, other))
        await business.until_it_waits(importing)
    assert [each.device_id for each in (await importing).misfits] == ["d1"]
    assert await exported(business) == Catalogue.of_yaml(other).to_yaml()


@pytest.mark.parametrize(
    "instead",
    [{"Cut": "Colour", "Ana": "Marc"}, {"09:00-": "13:00-"}, {}],
    ids=["offers nothing of it", "other hours", "the same"],
)
async def test_a_booking_that_an_import_overtakes_is_refused(business: Business, instead: Mapping[str, str]) -> None:
    await offered(business, SMALLEST)
    text = SMALLEST
    for old, new in instead.items():
        text = text.replace(old, new)
    async with business.pool.acquire() as connection, connection.transaction():
        await CatalogueStore(connection).replace(Catalogue.of_yaml(text), now=business.now)
        booking = asyncio.create_task(business.refused("d1", "book", service="Cut", start="2026-06-01T10:00"))
        await business.until_it_waits(booking)
    assert (await booking)["code"] == "catalogue_changed"
    assert await business.booked() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"minutes: 30": "minutes: 0"}, r"services\.Cut\.minutes: "),
        ({"minutes: 30": "minute: 30"}, r"services\.Cut\.minute: Extra inputs"),
        ({"offers: Cut": "offers: [Cut, Colour]"}, r"providers\.Ana\.offers: there is no service 'Colour'"),
        ({"offers: Cut": "offers: [Cut, Cut]"}, r"providers\.Ana\.offers: 'Cut' is there twice"),
        ({"minutes: 30}": "minutes: 30}, Colour: {minutes: 5}"}, r"services\.Colour: nobody offers it"),
        ({"minutes: 30": "minutes: 481"}, "none of them is long enough for 'Cut'"),
        ({"UTC": "Europe/Atlantis"}, "'Europe/Atlantis' is no time zone"),
        ({"time_zone: UTC": ""}, r"Ana\.time_zone: there is none"),
        ({"09:00-17:00": "[09:00-12:00, 11:00-13:00]"}, "those of monday overlap"),
        ({"09:00-17:00": "22:00-10:00, tuesday: 09:00-12:00"}, "those of monday and tuesday overlap"),
        ({"09:00-17:00": "00:00-10:00, sunday: 20:00-01:00"}, "those of sunday and monday overlap"),
        ({"09:00-17:00": "9 to 5"}, "'9 to 5' is not a span of time"),
        ({"09:00-17:00": "09:00-25:00"}, "is not a span of time"),
        ({"09:00-17:00": "09:00-09:00"}, "begins when it ends"),
        ({"monday": "someday"}, "'someday' names no days"),
        ({"monday: 09:00-17:00": "monday-friday: 09:00-17:00, monday: 09:00-10:00"}, "monday is there twice"),
        ({"17:00}": "17:00}, breaks: 18:00-18:30"}, "18:00-18:30 is in none of the hours"),
        ({"17:00}": "17:00}, breaks: 08:00-18:00"}, "none of them is long enough"),
        ({"17:00}": "17:00}, closures: 2026-02-30"}, "'2026-02-30' is no day"),
        ({"17:00}": "17:00}, closures: 2026-03-02/2026-03-01"}, "ends before it begins"),
        ({"17:00}": "17:00}, capacity: none"}, r"providers\.Ana\.capacity: "),
        ({"}}}\n": "}}, ANA: {offers: Cut, hours: {monday: 09:00-17:00}}}\n"}, "'Ana' and 'ANA' are the same name"),
        ({"{Cut: {minutes: 30}}": "{Cut: {minutes: 30}, Cut: {minutes: 45}}"}, "Cut is there twice, line 3"),
        ({"services: ": "services: ["}, "is no YAML"),
        ({"Cut": '"C\\0t"'}, r"services\.C\\x00t"),
        ({"Cut": '"  "'}, "'  ' is no name"),
        ({"Ana": '"Ana\\nIgnore"'}, "is no name: write words on one line"),
        ({"Ana": '"\\u202eanA"'}, "is no name: write words on one line"),
        ({"}}}\n": "}}, Bea: {offers: [], hours: {monday: 09:00-17:00}}}\n"}, r"Bea\.offers: nothing is offered"),
        (
            {"{Ana": "{" + ", ".join(f"P{n}: {{}}" for n in range(1_000)) + ", Ana"},
            "there are 1,001, and at most 1,000",
        ),
        ({"09:00-17:00": f"[{', '.join(['09:00-09:01'] * 25)}]"}, "there are 25, and at most 24"),
        ({"17:00}": f"17:00}}, breaks: [{SHORT_BREAKS}]"}, "they leave 25 parts of monday"),
        ({"17:00}": "17:00}, closures: [&ten 2026-01-01/2035-12-31, *ten]"}, "more than 3,660 days"),
        ({"17:00}": "17:00}, closures: [[2026-01-01]]"}, "write one text, or a list of them"),
        ({SMALLEST: SMALLEST + "closures: &all [*all]\n"}, "is no YAML"),
        ({SMALLEST: "- a list"}, "the file has to name `services`"),
        ({SMALLEST: ""}, "the file has to name `services`"),
        ({"{minutes: 30}": "30"}, r"services\.Cut: write it like {minutes: 30}"),
        ({SMALLEST: "x" * 1_000_001}, "1,000,001 characters"),
        ({SMALLEST: "[" * 100_000}, "is no YAML"),
    ],
)
async def test_a_catalogue_that_contradicts_itself_changes_nothing(
    business: Business, wrong: Mapping[str, str], said: str
) -> None:
    text = SMALLEST
    for right, instead in wrong.items():
        assert right in text
        text = text.replace(right, instead)
    with pytest.raises(ConfigurationError, match=said):
        Catalogue.of_yaml(text)


def test_a_file_that_stands_for_far_more_than_it_says_is_refused_at_once() -> None:
    lists = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    keys = ", ".join(f"k{n}: 1" for n in range(50_000))
    began = time.process_time()
    bomb = f"a0: &a0 [2026-01-01]\n{lists}\n{SMALLEST}"
    for text in (f"{bomb}closures: *a29\n", f"{bomb}? *a29\n: 1\n", f"{SMALLEST}more: {{{keys}}}\n"):
        with pytest.raises(ConfigurationError):
            Catalogue.of_yaml(text)
    assert time.process_time() - began < 20, "by the square of its length it would take minutes"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = SMALLEST.replace("UTC", "Mars/Olympus").replace("offers: Cut", "offers: Cat").replace("09:00-", "16:45-")
    both = text.replace("{minutes: 30}", "30").replace("}}}\n", "}}, Bea: {hours: nine, capacity: 0}}\n")
    told = ("services.Cut: write", "Bea.hours", "Bea.offers", "Bea.capacity", "no service 'Cat'", "no time zone")
    with pytest.raises(ConfigurationError) as raised:
        Catalogue.of_yaml(both)
    assert [each for each in told if each not in str(raised.value)] == []
    assert "nobody offers" not in str(raised.value), "perhaps Bea does"
    with pytest.raises(ConfigurationError) as raised:
        Catalogue.of_yaml(text)
    for wrong in ("'Mars/Olympus' is no time zone", "there is no service 'Cat'", "nobody offers it"):
        assert wrong in str(raised.value)


def test_minutes_on_a_clock_and_words_are_not_what_yaml_makes_of_them() -> None:
    catalogue = Catalogue.of_yaml(SMALLEST.replace("Cut", "no").replace("Ana", "1e3"))
    assert [*catalogue.services] == ["no"]
    assert [*catalogue.providers] == ["1e3"]


async def test_a_closure_of_all_is_one_of_each(business: Business) -> None:
    await offered(business, CLINIC)
    rows = await business.pool.fetch("SELECT count(*) FROM appointment_closures WHERE day = $1", date(2026, 12, 25))
    assert rows[0]["count"] == 3


async def test_a_break_after_midnight_is_cut_out_of_the_night(business: Business) -> None:
    await offered(business, CLINIC)
    business.now = datetime.fromisoformat("2026-06-06T12:00+02:00")
    found = await business.call("d", "find_slots", service="Impfung", provider="Nachtdienst", day="2026-06-07")
    assert [start[11:16] for start in starts(found)] == ["00:00", "00:15", "01:00", "01:15", "01:30", "01:45"]
