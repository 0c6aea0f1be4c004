"""Retention: removes conversations older than the operator wants to keep, one device at a time."""

from moorline_checkpoint.database import Database
from moorline_checkpoint.sessions import BATCH

TURNS = 1000
"""The most turns of a device that one statement removes."""


async def remove_older(database: Database, *, days: int) -> int:
    """Removes transcripts, messages, effects and checkpoints that are older than so many days by the database's clock,
    and returns the number of rows removed.

    It keeps what is needed by an open turn, by a message whose caller waits, or by a question that can still be
    answered, and what the agents of a device in use remember. A device whose row is locked is left for the next time.
    Each statement locks the row of one device only, so that no other device waits. Raises `StoreUnavailable` or
    `SchemaMismatch` when the database does; what was removed until then stays removed.
    """
    removed, last = 0, None
    while True:
        page = await database.fetch("old_devices", last, float(days), BATCH)
        for row in page:
            gone = TURNS
            while gone >= TURNS:
                gone = await database.fetchval("retire", row["device_id"], float(days), TURNS)
                removed += gone
        if len(page) < BATCH:
            return removed
        last = page[-1]["device_id"]
