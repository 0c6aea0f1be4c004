"""The pool of an event loop: how it is made, and how many of its connections tools may take."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from moorline_checkpoint.array_types import KnownArrays

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpg import Pool, Record

CLOSE_TIMEOUT = 5.0
"""Seconds that closing a pool may take."""

KEPT_FROM_TOOLS = 2
"""Connections of a pool that tools' transactions never take, as long as one is left for tools."""


class PooledConnection(KnownArrays):
    """A connection that is returned to the pool without a send, because no session state is ever set on it."""

    released_at: float | None = None

    def get_reset_query(self) -> str:
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:
        await super().reset(timeout=timeout)
        self.released_at = time.time()


def tool_slots(pool: Pool[Record]) -> asyncio.Semaphore:
    """One slot for each connection that tools may hold at a time."""
    return asyncio.Semaphore(max(1, pool.get_max_size() - KEPT_FROM_TOOLS))


class PoolUse(NamedTuple):
    """The connections of pools."""

    used: int
    idle: int
    limit: int

    @classmethod
    def of(cls, pools: Iterable[Pool[Record]]) -> PoolUse:
        """What they are doing right now, together."""
        all_ = [(pool.get_size(), pool.get_idle_size(), pool.get_max_size()) for pool in pools]
        size, idle, limit = (sum(each) for each in zip(*all_, strict=True)) if all_ else (0, 0, 0)
        return cls(used=size - idle, idle=idle, limit=limit)


class LoopPool(NamedTuple):
    """What one event loop uses."""

    pool: Pool[Record]
    tool_slots: asyncio.Semaphore

    async def close(self) -> None:
        """Closes the connections within `CLOSE_TIMEOUT`."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.pool.close()
