"""Backing off: while the database takes no connections, connecting is tried only now and then."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from moorline_migrations.errors import StoreUnavailable, translate_connect

if TYPE_CHECKING:
    from asyncpg import Connection, Record

FIRST = 0.05
"""Seconds without another attempt after the first failure; doubled after each further one."""

LONGEST = 0.5
"""At most so many seconds without another attempt: a database that is back is noticed that soon."""


class Backoff:
    """Connects to one database. After a failed attempt nobody makes another for a while, which grows with the failures
    and is shortened at random, so that many processes do not come back in step."""

    def __init__(self) -> None:
        self._failures = 0
        self._not_before = 0.0
        self._error: Exception | None = None

    async def pause(self) -> None:
        """Waits until the next attempt may be made."""
        left = self._not_before - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)

    async def connect(self, *args: Any, **options: Any) -> Connection[Record]:
        """`asyncpg.connect`. Until the next attempt may be made it fails with the last error."""
        started = time.monotonic()
        if started < self._not_before and self._error is not None:
            raise translate_connect(self._error) or self._error from self._error
        try:
            connection: Connection[Record] = await asyncpg.connect(*args, **options)
        except Exception as error:
            # Of attempts made at the same time, the first to fail counts.
            if started >= self._not_before and isinstance(translate_connect(error), StoreUnavailable):
                self._failed(error)
            raise
        self._failures, self._not_before, self._error = 0, 0.0, None
        return connection

    def _failed(self, error: Exception) -> None:
        longest = min(FIRST * 2**self._failures, LONGEST)
        self._failures += 1
        self._not_before = time.monotonic() + longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._error = error


def lost(cause: BaseException | None) -> bool:
    """Whether the connection broke, rather than the database being slow or full."""
    match cause:
        case asyncpg.PostgresError(sqlstate=str(state)):
            return state[:2] == "08" or state in ("57P01", "57P02", "57P03")
        case TimeoutError():
            return False
        case asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError():
            return True
        case _:
            return False
