"""Statistics: what all devices together are doing at a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from moorline_checkpoint.database import SlowStatement
from moorline_migrations.errors import StoreUnavailable

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

AGES = (60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds by which the ages of sessions are told apart."""


@dataclass(frozen=True, kw_only=True)
class SessionAges:
    """The live sessions of one agent."""

    count: int
    seconds: float
    """For how long they have lasted, all together."""
    by_age: tuple[int, ...]
    """How many have lasted less than each of `AGES`, and in the end those that have lasted longer."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the database holds, by its own clock."""

    sessions: Mapping[str, SessionAges]
    """The live sessions by agent."""
    expired: int
    """Locks that have expired and wait for a cleanup; they count for nothing."""
    waiting: int
    """Messages that wait for their turn."""
    longest_wait: float
    """Seconds that the first of them has waited."""
    as_of: datetime | None = None
    """Of which moment this is, if a replica says so; None: of the moment at which the primary was asked."""


async def statistics(database: Database, *, within: float) -> Statistics:
    """Raises `StoreUnavailable`, also if the database does not answer `within` so many seconds."""
    try:
        async with asyncio.timeout(within):
            rows = await database.fetch("session_statistics", AGES, within=within)
            (queue,) = await database.fetch("queue_statistics", within=within)
    except (TimeoutError, SlowStatement) as error:
        raise StoreUnavailable(f"The database has given no statistics within {within:g} s.") from error
    by_age: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for row in rows:
        agent = row["agent"]
        by_age.setdefault(agent, [0] * (len(AGES) + 1))[row["place"]] += row["sessions"]
        seconds[agent] = seconds.get(agent, 0.0) + row["seconds"]
    sessions = {agent: _ages(counts, seconds[agent]) for agent, counts in by_age.items()}
    return Statistics(
        sessions=sessions, expired=queue["expired"], waiting=queue["waiting"], longest_wait=queue["oldest"]
    )


def _ages(counts: Sequence[int], seconds: float) -> SessionAges:
    return SessionAges(count=sum(counts), seconds=seconds, by_age=tuple(counts))
