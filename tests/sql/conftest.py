"""A database in whose `public` a stranger planted all they could, and what the tests that run there again need."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from moorline_agents.tools import ToolContext
from moorline_checkpoint.array_types import KnownArrays
from tests.agents.scheduling.conftest import Business, salon  # noqa: F401
from tests.checkpoint.conftest import saver  # noqa: F401
from tests.conftest import Templates, fresh_database
from tests.migrations.conftest import backend  # noqa: F401
from tests.sql.probe import Connection, Probe
from tests.sql.reading import definitions, sent
from tests.turns.conftest import turns, worker  # noqa: F401

if TYPE_CHECKING:
    from asyncpg import Pool

PLANTED = (Path(__file__).parent / "planted.sql").read_text()

# Roles belong to the server, which all tests of a run share. Before PostgreSQL 15 every role may create in public.
STRANGER = """
DO $$
BEGIN
    CREATE ROLE stranger LOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
"""

# Our tables as views in a schema without operators, so that the tests' own SQL means what it says.
SHOWN = """
CREATE SCHEMA shown;
DO $$
DECLARE
    name name;
BEGIN
    FOR name IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' LOOP
        EXECUTE format('CREATE VIEW shown.%1$I AS SELECT * FROM public.%1$I', name);
    END LOOP;
END
$$;
"""


async def plant(dsn: str) -> None:
    """Lets a stranger plant in `public` everything that would be preferred to what pg_catalog has."""
    names = {word for _, sql in [*definitions(), *sent()] for word in re.findall(r"[a-z_0-9]+", sql.lower())}
    owner = await asyncpg.connect(dsn)
    await owner.execute(STRANGER)
    await owner.execute(SHOWN)
    await owner.close()
    stranger = await asyncpg.connect(urlsplit(dsn)._replace(netloc="stranger@").geturl())
    await stranger.execute(f"SET planting.names = '{' '.join(sorted(names))}'")
    await stranger.execute(PLANTED)
    await stranger.close()


@pytest.fixture(scope="session")
def template(template: str, templates: Templates) -> str:
    """The name of a database with our schema and planted objects, for `dsn` to clone."""
    return templates("moorline_planted", plant, of=template)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection with which the tests look at rows, which runs nothing planted."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "shown"})
    yield connection
    await connection.close()


@pytest.fixture
async def probe(dsn: str, catalog: Connection) -> AsyncIterator[Probe]:
    """Judges our SQL in a database with planted objects."""
    ours = await asyncpg.connect(dsn)
    yield Probe(ours, catalog)
    await ours.close()


@pytest.fixture
async def catalog(dsn: str) -> AsyncIterator[Connection]:
    """A connection that finds only what is in pg_catalog."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "pg_catalog"})
    yield connection
    await connection.close()


@pytest.fixture
def planted_dsn(server_dsn: str, templates: Templates) -> Iterator[str]:
    """A fresh database where objects were planted before our schema was made."""
    with fresh_database(server_dsn, templates("moorline_planted_empty", plant)) as fresh:
        yield fresh


class PlantedBusiness(Business):
    """Its tools find what was planted; the tests' own statements do not."""

    def __init__(self, pool: Pool, tools: Pool) -> None:
        super().__init__(pool)
        self._tools = tools

    def context(self, device: str) -> ToolContext:
        @asynccontextmanager
        async def transaction() -> AsyncIterator[Any]:
            async with self._tools.acquire() as connection, connection.transaction():
                yield connection

        return replace(super().context(device), transaction=transaction)


@pytest.fixture
async def business(dsn: str) -> AsyncIterator[Business]:
    """Nobody works there yet."""
    async with (
        asyncpg.create_pool(dsn, min_size=0, server_settings={"search_path": "shown"}) as pool,
        asyncpg.create_pool(dsn, min_size=0, connection_class=KnownArrays) as tools,
    ):
        yield PlantedBusiness(pool, tools)
