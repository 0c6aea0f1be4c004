"""Retention: conversations that are older than an operator wants them kept go, a device at a time."""

from moorline_checkpoint.database import Database
from moorline_checkpoint.sessions import BATCH

TURNS = 1000
"""Turns of a device that go in one statement at most."""


async def remove_older(database: Database, *, days: int) -> int:
    """Removes transcripts, messages, effects and checkpoints that are older than so many days by the database's clock;
    how many rows that were.

    What an open turn, a message that somebody waits with or a question that can still be answered needs stays, and so
    does what the agents of a device in use remember. A device that somebody is changing waits for the next time. Each
    statement holds the row of one device, so that no other waits for it.
    Raises `StoreUnavailable` or `SchemaMismatch` when the database does; what went until then is gone.
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
