"""Retention: removes conversations older than the operator wants to keep, one device at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from moorline_checkpoint.database import Database
from moorline_checkpoint.sessions import BATCH
from moorline_checkpoint.state_key import StateKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TURNS = 1000
"""The most turns of a device that one statement removes."""


async def remove_older(database: Database, *, days: int) -> int:
    """Removes transcripts, messages, effects and checkpoints that are older than so many days by the database's clock,
    and returns the number of rows removed. Of a device that nobody has used for so long, and that no agent holds,
    nothing is left; only if the backend had the table `conversation_states` before Moorline, the device's row stays.

    It keeps what is needed by an open turn, by a message whose caller waits, or by a question that can still be
    answered, and what the agents of a device in use remember. A device whose row is locked is left for the next time.
    Each statement locks the row of one device only, so that no other device waits. Raises `StoreUnavailable` or
    `SchemaMismatch` when the database does; what was removed until then stays removed.
    """
    removed = 0
    async for device_id in _devices(database, "old_devices", days=days):
        gone = TURNS
        while gone >= TURNS:
            gone = await database.fetchval("retire", device_id, float(days), TURNS)
            removed += gone
    if await database.fetchval("made_here"):
        async for device_id in _devices(database, "forgotten_devices", days=days):
            removed += await _forget(database, device_id, days=days)
    return removed


async def _devices(database: Database, statement: str, *, days: int) -> AsyncIterator[str]:
    last = None
    while True:
        page = await database.fetch(statement, last, float(days), BATCH)
        for row in page:
            yield row["device_id"]
        if len(page) < BATCH:
            return
        last = page[-1]["device_id"]


async def _forget(database: Database, device_id: str, *, days: int) -> int:
    """Removes the device's row, unless a table of somebody else refers to it."""
    key = StateKey(device_id)
    try:
        async with database.transaction() as connection:
            if await connection.fetchval(database.sql("hold_device"), key) is None:
                return 0
            return await connection.fetchval(database.sql("forget"), key, float(days)) or 0
    except asyncpg.ForeignKeyViolationError:
        return 0
