"""Free slots across the calendars of several providers, few enough to be read out."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import groupby, islice
from typing import TYPE_CHECKING

from moorline_agents.scheduling.calendar import Bookable, ProviderCalendar, Visit, first_instant, iso, spoken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

SEARCH = timedelta(days=14)
"""How far ahead a search for free slots looks."""

MOST = 6
"""How many slots a search returns at most."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A free start, and the providers of one time zone who are free then."""

    start: datetime
    zone: ZoneInfo
    providers: tuple[str, ...]

    def shown(self) -> dict[str, object]:
        """The slot as the model is shown it; to book it, the model passes its `start`."""
        return {
            "start": iso(self.start, self.zone),
            "when": spoken(self.start, self.zone),
            "providers": list(self.providers),
            "time_zone": self.zone.key,
        }


@dataclass(frozen=True, kw_only=True)
class PartOfDay:
    """The starts that were asked for: at or after `after`, and before `before`, on the local clock."""

    after: time = time.min
    before: time | None = None

    def __contains__(self, local: time) -> bool:
        return self.after <= local and (self.before is None or local < self.before)


def next_slots(
    calendars: Sequence[ProviderCalendar],
    *,
    visit: Visit,
    since: datetime,
    bookable: Bookable,
    part: PartOfDay | None = None,
) -> list[Slot]:
    """The next slots for the visit within `SEARCH` of `since`, `MOST` at most."""
    since = max(since, bookable.since)
    bounds = since, min(since + SEARCH, bookable.until)
    return _picked(calendars, [bounds] * len(calendars), visit, part)


def slots_on(
    calendars: Sequence[ProviderCalendar],
    day: date,
    *,
    visit: Visit,
    bookable: Bookable,
    part: PartOfDay | None = None,
) -> list[Slot]:
    """The slots for the visit on `day`, `MOST` at most; each calendar counts the day in its own time zone."""
    return _picked(calendars, [_hours_of(day, c.zone, bookable) for c in calendars], visit, part)


def _hours_of(day: date, zone: ZoneInfo, bookable: Bookable) -> tuple[datetime, datetime]:
    midnight = datetime.combine(day, time.min)
    end = first_instant(midnight + timedelta(days=1), zone)
    return max(bookable.since, first_instant(midnight, zone)), min(end, bookable.until)


def _picked(
    calendars: Sequence[ProviderCalendar],
    bounds: Iterable[tuple[datetime, datetime]],
    visit: Visit,
    part: PartOfDay | None,
) -> list[Slot]:
    free = (_free(c, visit, *bound, part or PartOfDay()) for c, bound in zip(calendars, bounds, strict=True))
    return list(islice(_apart(heapq.merge(*free, key=_start), visit.length), MOST))


def _free(
    calendar: ProviderCalendar, visit: Visit, since: datetime, until: datetime, part: PartOfDay
) -> Iterator[Slot]:
    for start in calendar.free_starts(visit=visit, since=since, until=until):
        if start.astimezone(calendar.zone).time() in part:
            yield Slot(start=start, zone=calendar.zone, providers=(calendar.provider,))


def _apart(slots: Iterable[Slot], length: timedelta) -> Iterator[Slot]:
    """One slot for all who are free at a start, without overlaps: 9:00 and 9:30, but not 9:15."""
    earliest: datetime | None = None
    for start, together in groupby(slots, key=_start):
        if earliest is not None and start < earliest:
            continue
        earliest = start + length
        by_zone: dict[ZoneInfo, list[str]] = {}
        for slot in together:
            by_zone.setdefault(slot.zone, []).extend(slot.providers)
        for zone, providers in by_zone.items():
            yield Slot(start=start, zone=zone, providers=tuple(dict.fromkeys(providers)))


def _start(slot: Slot) -> datetime:
    return slot.start
