"""A plugin for pytest that runs LangGraph's own tests of its PostgreSQL store on `FactStore`.

It replaces their fixture `store`, and skips what `SKIPPED` names. `FACTS_DSN` is the database, `FACTS_SOURCE` on what
the store works: a `dsn` or a `pool` of the caller's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg
import pytest
from langgraph.store.base import SearchItem, TTLConfig

from moorline_checkpoint.array_types import KnownArrays
from moorline_checkpoint.fact_store import FactStore

TTL = 6 / 60
"""Minutes, as their tests have it."""

NO_MEANING = "FactStore does not search by meaning; test_facts.py shows that it says so"
INSIDE = "counts connections inside LangGraph's own module"

SKIPPED = {
    "test_vector_store_initialization": NO_MEANING,
    "test_vector_insert_with_auto_embedding": NO_MEANING,
    "test_vector_update_with_embedding": NO_MEANING,
    "test_vector_search_with_filters": NO_MEANING,
    "test_vector_search_pagination": NO_MEANING,
    "test_vector_search_edge_cases": NO_MEANING,
    "test_embed_with_path": NO_MEANING,
    "test_search_sorting": NO_MEANING,
    "test_abatch_uses_single_pool_checkout": INSIDE,
}
"""Their tests that do not run here, and why."""

THEIR_TABLE = """
CREATE OR REPLACE VIEW store AS
SELECT rtrim(namespace, '.') AS prefix, key, updated_at, expires_at FROM conversation_facts WHERE device_id = ''
"""
"""Their tests look at rows, and change when they expire."""


class TestedStore(FactStore):
    """A store that does not hear a `query`: a test of theirs gives one to a store without an index, which ignores it,
    to see what expires."""

    __test__ = False

    async def asearch(self, namespace_prefix: Any, /, **options: Any) -> list[SearchItem]:
        return await super().asearch(namespace_prefix, **{**options, "query": None})

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Cursor]:
        async with self._database.connection() as connection:
            yield Cursor(connection)


class Cursor:
    """As much of psycopg's cursor as their tests use."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows: list[dict[str, Any]] = []

    async def execute(self, sql: str, params: Sequence[object] = ()) -> None:
        numbers = count(1)
        parts = sql.split("%s")
        numbered = parts[0] + "".join(f"${next(numbers)}{part}" for part in parts[1:])
        self._rows = [dict(row) for row in await self._connection.fetch(numbered, *params)]

    async def fetchone(self) -> dict[str, Any] | None:
        return self._rows.pop(0) if self._rows else None


@pytest.fixture
async def store() -> AsyncIterator[TestedStore]:
    dsn = os.environ["FACTS_DSN"]
    ttl: TTLConfig = {"default_ttl": TTL, "refresh_on_read": True}
    async with asyncpg.create_pool(dsn, min_size=0, max_size=10, connection_class=KnownArrays) as pool:
        await pool.execute("DELETE FROM conversation_facts")
        await pool.execute(THEIR_TABLE)
        given = os.environ["FACTS_SOURCE"] == "pool"
        tested = TestedStore(pool, ttl=ttl) if given else TestedStore.from_conn_string(dsn, ttl=ttl)
        async with tested:
            await tested.setup()
            await tested.start_ttl_sweeper(TTL / 2)
            yield tested


@pytest.hookimpl
def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):
        collector.obj.store = store


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = SKIPPED.get(getattr(item, "originalname", item.name))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
