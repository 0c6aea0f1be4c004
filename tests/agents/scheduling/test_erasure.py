"""An erased device leaves no trace: its past appointments are deleted, and those to come are cancelled."""

import json
from datetime import timedelta
from typing import Any

import pytest

from moorline_checkpoint.devices import require_device_id
from moorline_checkpoint.errors import InvalidDeviceID

from .conftest import Business

BOOK = """
    INSERT INTO appointments (device_id, provider_id, service_id, during, status)
    SELECT $1, provider_id, service_id, tstzrange(clock_timestamp() + $2, clock_timestamp() + $2 + '1 hour'), $3
    FROM appointment_providers, appointment_services
    WHERE appointment_providers.name = 'Ana' AND appointment_services.name = 'Haircut'
"""
ROWS = (
    "SELECT device_id, status, lower(during) > clock_timestamp() AS coming FROM appointments ORDER BY during, device_id"
)


@pytest.fixture
async def booked(business: Business) -> Business:
    """Ana has cut d1's hair, and is going to cut d1's and d2's again; d1 has cancelled one as well."""
    await business.employs("Ana")
    await business.offers("Haircut", 60, "Ana")
    for device, days, status in (
        ("d1", -2.0, "booked"),
        ("d1", -1.0, "cancelled"),
        ("d1", -0.01, "booked"),
        ("d1", 1.0, "booked"),
        ("d2", 2.0, "booked"),
        ("d1", 3.0, "cancelled"),
    ):
        await business.pool.execute(BOOK, device, timedelta(days=days), status)
    return business


async def rows(business: Business) -> list[tuple[Any, ...]]:
    """Device, status, and whether it is still to come, for each appointment, by time."""
    return [tuple(row) for row in await business.pool.fetch(ROWS)]


async def test_past_appointments_are_deleted_and_coming_ones_cancelled_and_nobodys(booked: Business) -> None:
    await booked.pool.execute("SELECT scheduling_erase('d1')")
    assert await rows(booked) == [
        ("", "cancelled", True),
        ("d2", "booked", True),
        ("", "cancelled", True),
    ]


async def test_the_time_is_free_again_as_often_as_its_owner_is_erased(booked: Business) -> None:
    day = timedelta(days=7)
    for device in ("d3", "d4", "d5"):
        await booked.pool.execute(BOOK, device, day, "booked")
        await booked.pool.execute("SELECT scheduling_erase($1)", device)
    assert [row for row in await rows(booked) if row[0] == ""] == [("", "cancelled", True)] * 3
    await booked.pool.execute(BOOK, "d6", day, "booked")


async def test_a_device_without_appointments_is_erased_too(booked: Business) -> None:
    before = await rows(booked)
    await booked.pool.execute("SELECT scheduling_erase('d9')")
    assert await rows(booked) == before


def test_nobody_has_the_empty_device_id() -> None:
    with pytest.raises(InvalidDeviceID):
        require_device_id("")


async def test_an_export_has_all_appointments_of_the_device_by_time(booked: Business) -> None:
    exported = json.loads(await booked.pool.fetchval("SELECT scheduling_export('d1')"))
    assert [(one["status"], one["service"], one["provider"], one["time_zone"]) for one in exported] == [
        ("booked", "Haircut", "Ana", "Europe/Berlin"),
        ("cancelled", "Haircut", "Ana", "Europe/Berlin"),
        ("booked", "Haircut", "Ana", "Europe/Berlin"),
        ("booked", "Haircut", "Ana", "Europe/Berlin"),
        ("cancelled", "Haircut", "Ana", "Europe/Berlin"),
    ]
    assert [one["starts"] for one in exported] == sorted(one["starts"] for one in exported)
    names = "appointment_id created_at ends name note provider service starts status time_zone"
    assert {" ".join(sorted(one)) for one in exported} == {names}
    assert json.loads(await booked.pool.fetchval("SELECT scheduling_export('d9')")) == []


async def test_both_are_registered(booked: Business) -> None:
    registered = await booked.pool.fetchrow(
        "SELECT erase_function, export_function FROM moorline_schema WHERE component = 'scheduling'"
    )
    assert registered is not None
    assert tuple(registered) == ("scheduling_erase", "scheduling_export")
