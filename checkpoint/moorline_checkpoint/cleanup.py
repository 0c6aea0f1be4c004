"""Cleaning up: one process at a time, whichever comes first, with a lease on a row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from moorline_migrations.errors import StoreUnavailable

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

LEASE_SECONDS = 60.0
"""Seconds for which a process that cleans up is believed alive, on the database's clock."""

RENEW = 15.0
"""Seconds after which it says again that it is."""

T = TypeVar("T")


async def alone(database: Database, work: Callable[[], Awaitable[T]], *, pause: float = 0.0) -> T | None:
    """The result of `work`, or None if another process cleans up right now, if the last cleanup of any process began
    less than `pause` seconds ago, or if the lease was lost, which ends the work.

    It keeps no connection. A process that hangs for longer than the lease may go on for a moment beside the next one,
    so each step has to stand that. Raises what the work raises, and `StoreUnavailable`."""
    claim = uuid4()
    if not await database.fetchval("claim_cleanup", claim, LEASE_SECONDS, pause):
        return None
    working = asyncio.ensure_future(work())
    renewing = asyncio.create_task(_renew(database, claim))
    try:
        done, _ = await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return working.result()
        renewing.result()
        return None
    finally:
        working.cancel()
        renewing.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)
        with suppress(StoreUnavailable):  # then the lease ends by itself
            await database.execute("end_cleanup", claim)


async def _renew(database: Database, claim: object) -> None:
    """Ends when the lease is lost."""
    while True:
        await asyncio.sleep(RENEW)
        if not await database.fetchval("claim_cleanup", claim, LEASE_SECONDS, 0.0):
            return


async def roll_up(database: Database) -> None:
    """Counts the turns of all hours that are over for the figures, an hour at a time."""
    while await database.fetchval("roll_up"):
        pass
