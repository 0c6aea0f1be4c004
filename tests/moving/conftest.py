"""A database where two devices have had whole conversations, to clone."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from moorline_agents.scheduling.demo import seed_demo
from moorline_migrations import SHIPPED, migrate

from ..conftest import Templates, fresh_database
from ..runtime.test_erasure import OURS, THEIRS, talk

ENDED = """
INSERT INTO conversation_sessions (device_id, ended_at, position, agent, locked_at, why)
VALUES ($1, now(), 0, 'concierge', now() - interval '1 hour', 'released')
"""


FACT = """
INSERT INTO conversation_facts (device_id, namespace, key, value, created_at, updated_at, ttl, expires_at)
VALUES ($1, 'scheduling.people.', 'name', '{"name": "Ada"}', now(), now(), 1.5, now() + interval '90 seconds')
"""


FILE = """
INSERT INTO conversation_files (device_id, hash, type, size, data, stored_at)
VALUES ($1, encode(sha256('\\x00ff'), 'hex'), 'image/png', 2, '\\x00ff', now())
"""

IN_A_WEEK = """
UPDATE appointments
SET during = tstzrange(lower(during) + interval '1 week', upper(during) + interval '1 week'),
    occupies = CASE WHEN occupies IS NOT NULL THEN
        tstzrange(lower(occupies) + interval '1 week', upper(occupies) + interval '1 week') END
"""
"""They must not begin before the tests end: an erasure removes those that have begun."""


@pytest.fixture
def talked(templates: Templates, server_dsn: str) -> Iterator[str]:
    """A fresh database in which OURS and THEIRS have talked."""

    async def fill(dsn: str) -> None:
        await migrate(dsn, components=SHIPPED)
        connection = await asyncpg.connect(dsn)
        await seed_demo(connection)
        for device in (OURS, THEIRS):
            await talk(dsn, device)
            await connection.execute(ENDED, device)
            await connection.execute(FACT, device)
            await connection.execute(FILE, device)
        await connection.execute(IN_A_WEEK)
        await connection.close()

    with fresh_database(server_dsn, templates("moorline_talked", fill)) as fresh:
        yield fresh
