"""Figures: what all devices together have done in a period, counted from committed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from moorline_checkpoint.ending import Ending
from moorline_checkpoint.packing import unpack_text

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Database

# All statements see the same rows; a roll-up between two of them would count turns twice or not at all.
_AT_ONE_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True, kw_only=True)
class SessionFigures:
    """Sessions of a period. One that began before it and ended in it counts among the ended ones only."""

    started: int
    ended: Mapping[Ending, int]
    """How many ended, by why; `released` are those that the agent ended itself."""
    p50: float | None
    """Seconds that half of the ended ones lasted at most; None if none ended."""
    p95: float | None
    """Seconds that 95 % of them lasted at most."""


@dataclass(frozen=True, kw_only=True)
class TurnFigures:
    """Turns of a day in UTC that an agent answered."""

    day: date
    agent: str | None
    """None: the manager itself."""
    turns: int
    people: int
    """How many different conversations they belong to."""


@dataclass(frozen=True, kw_only=True)
class DayFigures:
    """Turns of a day in UTC, of all agents together."""

    day: date
    turns: int
    people: int


@dataclass(frozen=True, kw_only=True)
class TokenFigures:
    """What turns of a day in UTC cost, failed attempts included, by who asked which model: an agent, or the router as
    `route`."""

    day: date
    agent: str | None
    model: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was committed between two moments of the database's clock, without devices that were erased."""

    since: datetime
    """The beginning of a day in UTC."""
    until: datetime
    sessions: SessionFigures
    sessions_by_agent: Mapping[str, SessionFigures]
    days: tuple[DayFigures, ...]
    turns: tuple[TurnFigures, ...]
    tokens: tuple[TokenFigures, ...]


async def figures(database: Database, since: datetime | timedelta) -> Figures:
    """The figures since the beginning of the day, in UTC, of a moment or of so long ago.

    Turns that a cleanup has counted are read by day and device, the others one by one. Raises `StoreUnavailable`."""
    moment, ago = (since, None) if isinstance(since, datetime) else (None, since)
    async with database.transaction(begin=_AT_ONE_MOMENT) as connection:

        async def rows(name: str, *args: object) -> list[Record]:
            return await connection.fetch(database.sql(name), *args)

        (period,) = await rows("figures_period", moment, ago)
        begins, rolled_up_to = period["since"], period["rolled_up_to"]
        sessions = await rows("session_figures", begins)
        turns = await rows("turn_figures", begins, rolled_up_to)
        days = await rows("day_figures", begins, rolled_up_to)
    by_day: dict[date, int] = {}
    for row in turns:
        by_day[row["day"]] = by_day.get(row["day"], 0) + row["turns"]
    return Figures(
        since=begins,
        until=period["until"],
        sessions=next(_sessions(row) for row in sessions if row["agent"] is None),
        sessions_by_agent={unpack_text(row["agent"]): _sessions(row) for row in sessions if row["agent"] is not None},
        days=tuple(DayFigures(day=row["day"], turns=by_day[row["day"]], people=row["people"]) for row in days),
        turns=tuple(
            TurnFigures(day=row["day"], agent=row["agent"] or None, turns=row["turns"], people=row["people"])
            for row in turns
            if row["turns"]
        ),
        tokens=tuple(
            TokenFigures(
                day=row["day"],
                agent=row["agent"] or None,
                model=unpack_text(row["model"]),
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
            )
            for row in turns
            if row["input_tokens"] or row["output_tokens"]
        ),
    )


def _sessions(row: Record) -> SessionFigures:
    p50, p95 = row["percentiles"] or (None, None)
    return SessionFigures(started=row["started"], ended={why: row[why] for why in get_args(Ending)}, p50=p50, p95=p95)
