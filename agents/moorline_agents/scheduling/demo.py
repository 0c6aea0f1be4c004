"""A small made-up catalogue, so that there is something to book before a business has entered its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.scheduling.repository import STATEMENTS
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from moorline_agents.tools import Connection

TIME_ZONE = "Europe/Berlin"
"""The time zone of everyone in the demonstration."""


async def seed_demo(connection: Connection, *, schema: str = "public") -> bool:
    """Fills the catalogue if it has no service yet; returns whether it did.

    This is one statement: if several processes run it at once, one fills the catalogue and the others find it full.
    """
    return bool(await connection.fetchval(load(STATEMENTS, schema)["seed_demo"].sql, TIME_ZONE))
