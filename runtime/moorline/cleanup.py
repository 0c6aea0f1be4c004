"""Cleaning up: what no turn waits for, done by one process at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorline_checkpoint.cleanup import alone, roll_up
from moorline_checkpoint.fact_store import remove_expired
from moorline_checkpoint.retention import remove_older

if TYPE_CHECKING:
    from moorline.backend import Backend


@dataclass(frozen=True, kw_only=True)
class CleanedUp:
    """What a cleanup did."""

    expired: int
    """Locks that had expired and were dropped."""
    removed: int
    """Rows that were older than `MOORLINE_RETENTION_DAYS`."""


async def clean_up(backend: Backend, *, retention_days: int | None, pause: float = 0.0) -> CleanedUp | None:
    """Drops expired locks, forgets revocations, link codes and facts that have expired and files of nobody, counts
    turns for the figures, and removes what is older than so many days, each in small steps. None if another process
    cleans up, or if the last cleanup began less than `pause` seconds ago. What was done until an error stays done."""
    database = backend.saver.database

    async def work() -> CleanedUp:
        expired = await backend.saver.cleanup_expired_sessions()
        await backend.revocations.forget_old()
        await backend.people.forget_old()
        await remove_expired(database)
        await backend.files.forget_lost()
        await roll_up(database)
        removed = 0 if retention_days is None else await remove_older(database, days=retention_days)
        return CleanedUp(expired=expired, removed=removed)

    return await alone(database, work, pause=pause)
