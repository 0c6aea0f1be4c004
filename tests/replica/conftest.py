"""A primary and a streaming replica of it, for all tests of the folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg
import pytest

from tests.spaces import a_space

from ..faults.server import Server


@dataclass(frozen=True)
class Pair:
    """A primary and its replica."""

    primary: Server
    replica: Server

    async def replay(self, dsn: str, command: str) -> None:
        """`pause` or `resume` what the replica does."""
        await fetchval(self.replica.same_database(dsn), f"SELECT pg_wal_replay_{command}()")

    async def caught_up(self, dsn: str) -> None:
        """Waits until the replica has everything."""
        position = await fetchval(dsn, "SELECT pg_current_wal_flush_lsn()::text")
        reached = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        while not await fetchval(self.replica.same_database("//server/postgres"), reached, position):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def fetchval(dsn: str, sql: str, *arguments: object) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()


@pytest.fixture(scope="package")
def pair() -> Iterator[Pair]:
    with (
        a_space() as one,
        a_space() as another,
        Server.running(one / "pg") as primary,
        Server.following(primary, another / "pg") as replica,
    ):
        yield Pair(primary, replica)


@pytest.fixture
def dsn(pair: Pair) -> Iterator[str]:
    with pair.primary.database() as dsn:
        asyncio.run(pair.caught_up(dsn))
        yield dsn


@pytest.fixture
def other(pair: Pair) -> Iterator[str]:
    """Another database of the same server."""
    with pair.primary.database() as other:
        asyncio.run(pair.caught_up(other))
        yield other
