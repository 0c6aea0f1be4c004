"""The pool of an event loop: what it is made of, how much of it tools may take, and its end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

import asyncpg

from moorline_checkpoint.array_types import KnownArrays

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Pool, Record

CLOSE_TIMEOUT = 5.0
"""Seconds that a pool may take to say goodbye."""

KEPT_FROM_TOOLS = 2
"""Connections of a pool that tools' transactions never take, if that leaves them one."""


class PooledConnection(KnownArrays):
    """A connection that is given back without a word to the server, as no session state is ever set on it."""

    released_at: float | None = None

    def get_reset_query(self) -> str:
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:
        await super().reset(timeout=timeout)
        self.released_at = time.time()


def tool_slots(pool: Pool[Record]) -> asyncio.Semaphore:
    """One for each connection that tools may hold at a time."""
    return asyncio.Semaphore(max(1, pool.get_max_size() - KEPT_FROM_TOOLS))


class LoopPool(NamedTuple):
    """What one event loop uses."""

    pool: Pool[Record]
    ending: _Ending
    tool_slots: asyncio.Semaphore

    @classmethod
    async def of(cls, pool: Pool[Record]) -> Self:
        """For the running loop, with which the pool closes."""
        ending = _Ending(pool)
        await ending.await_loop()
        return cls(pool, ending, tool_slots(pool))


class _Ending:
    """The end of a pool. Who uses it and the loop that ends may both bring it about, also at the same time."""

    def __init__(self, pool: Pool[Record]) -> None:
        self._pool = pool
        self._closing: asyncio.Task[None] | None = None
        self._lifetime = self._of_loop()

    async def await_loop(self) -> None:
        """From now on the loop, which closes the asynchronous generators it has begun, closes the pool when it ends."""
        await anext(self._lifetime)

    async def come(self) -> None:
        """Closes the pool, once."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        if not self._closing.done():
            await asyncio.wait([self._closing])

    async def _of_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.come()

    async def _close(self) -> None:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._pool.close()
