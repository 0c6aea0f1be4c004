"""The tables of appointments: their schema, their time zones, their index."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from moorline_agents.errors import AgentError
from moorline_agents.scheduling.repository import STATEMENTS
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_migrations import SCHEDULING, migrate
from moorline_migrations.errors import ConfigurationError
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from tests.agents.scheduling.conftest import Business


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
    await salon.pool.execute(
        """INSERT INTO appointments (device_id, provider_id, service_id, during)
           SELECT 'd' || provider_id || '-' || hour, provider_id, 1,
                  tstzrange(day + hour * interval '1 hour', day + (hour + 1) * interval '1 hour')
           FROM appointment_providers, generate_series(1, 4000) AS hour,
                date_trunc('day', timestamptz '2026-01-01') AS day"""
    )
    await salon.pool.execute("ANALYZE appointments")
    sql = load(STATEMENTS, "public")["busy"].sql
    plan = await salon.pool.fetch(f"EXPLAIN {sql}", [1], salon.now, salon.now + timedelta(days=14))
    assert any("appointments_one_at_a_time" in row[0] for row in plan), plan
