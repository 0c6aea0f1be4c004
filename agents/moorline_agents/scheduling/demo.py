"""A small made-up catalogue, so that there is something to book before a business brings its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.scheduling.repository import STATEMENTS
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from moorline_agents.tools import Connection

TIME_ZONE = "Europe/Berlin"
"""Where everybody of the demo works."""


async def seed_demo(connection: Connection, *, schema: str = "public") -> bool:
    """Fills the catalogue if it holds no service yet; says whether it did.

    One statement: of several processes that do it at once, one fills it and the others find it filled.
    """
    return bool(await connection.fetchval(load(STATEMENTS, schema)["seed_demo"].sql, TIME_ZONE))
