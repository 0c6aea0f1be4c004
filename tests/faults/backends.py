"""The server's view of the connections to a test's database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

OTHERS = "datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"


async def states(dsn: str) -> list[str]:
    """The state of each connection except the one that asks: `active`, `idle`, `idle in transaction`, …"""
    return [row["state"] for row in await _ask(dsn, f"SELECT state FROM pg_stat_activity WHERE {OTHERS}")]  # noqa: S608


async def kill(dsn: str) -> int:
    """Ends all connections except the one that asks, waits until they have ended, and returns how many there were."""
    sql = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}"  # noqa: S608
    ended = len(await _ask(dsn, sql))
    await none_left(dsn)
    return ended


async def none_left(dsn: str) -> None:
    """Waits until no connection is left, which takes the server a moment; fails after 10 s."""
    left = await leaked(dsn)
    assert not left, f"connections were left: {left}"


async def leaked(dsn: str, *, allowed: str = "") -> list[str]:
    """Waits up to 10 s until no connection is left in any but the allowed state, and returns the states of those that
    are."""
    deadline = time.monotonic() + 10
    while left := [state for state in await states(dsn) if state != allowed]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.01)
    return left


@asynccontextmanager
async def leaving_nothing(dsn: str) -> AsyncIterator[None]:
    """Fails if the block leaves a connection, or an idle transaction."""
    yield
    await none_left(dsn)


async def all_idle(dsn: str) -> int:
    """Waits until no connection is working or in a transaction, and returns how many connections there are; fails after
    10 s."""
    left = await leaked(dsn, allowed="idle")
    assert not left, f"connections did not come to rest: {left}"
    return len(await states(dsn))


async def _ask(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()
