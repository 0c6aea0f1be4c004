"""The time arithmetic of a provider's calendar: works out the free starts from opening hours and bookings.

An *instant* is an aware datetime; a *local time* is what the clock on the provider's wall shows. Nothing here
reads a database or a clock: `now` is always passed in.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

GRID = timedelta(minutes=15)
"""Appointments begin on multiples of this; so is every UTC offset in use, so local clocks agree."""

HORIZON = timedelta(days=365)
"""How far ahead an appointment may be, where nothing else is said."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_START = attrgetter("start")


Reason = Literal[
    "past",
    "too_soon",
    "too_far",
    "closed",
    "taken",
    "elsewhere",
    "off_grid",
    "skipped_hour",
    "repeated_hour",
    "wrong_offset",
]


class Unbookable(Exception):
    """A start that cannot be booked; the message is a sentence for the person, `reason` a code for the program.

    `look_from` is the instant from which it makes sense to look for another start; None if the person has to be asked
    instead, perhaps which of the `instants` they mean.
    """

    def __init__(
        self, message: str, *, reason: Reason, look_from: datetime | None, instants: tuple[datetime, ...] = ()
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.look_from = look_from
        self.instants = instants


@dataclass(frozen=True, kw_only=True)
class Span:
    """The time from the instant `start` until just before the instant `end`."""

    start: datetime
    end: datetime

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Visit:
    """How long a visit takes, and the time before and after it in which its provider can do nothing else."""

    length: timedelta
    before: timedelta = timedelta()
    after: timedelta = timedelta()

    def occupied(self, start: datetime) -> Span:
        """All the time that a visit which begins at `start` takes its provider."""
        return Span(start=start - self.before, end=start + self.length + self.after)


@dataclass(frozen=True, kw_only=True)
class Bookable:
    """When an appointment that is made now may begin: from `lead_time` until just before `horizon` from now."""

    now: datetime
    lead_time: timedelta = timedelta()
    horizon: timedelta = HORIZON

    @property
    def since(self) -> datetime:
        return self.now + self.lead_time

    @property
    def until(self) -> datetime:
        return self.now + self.horizon


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Opening hours that begin on one day of every week: its ISO weekday, and minutes since its midnight on the local
    clock; more than a day's minutes if they end on the next day."""

    weekday: int
    opens: int
    closes: int


@dataclass(frozen=True, kw_only=True)
class ProviderCalendar:
    """When one provider works and is busy; both only for the period that was read."""

    provider: str
    zone: ZoneInfo
    openings: tuple[Opening, ...]
    closures: frozenset[date]
    """The days whose hours do not count, to the end; those of the day before do, past midnight too."""
    seats: tuple[tuple[Span, ...], ...]
    """For each visit that the provider can have at the same time, when that seat is taken: in order and without
    overlaps."""

    def free_starts(self, *, visit: Visit, since: datetime, until: datetime) -> Iterator[datetime]:
        """The instants from `since` to just before `until` at which the visit can begin, in order."""
        last = until.astimezone(self.zone).date()
        day = since.astimezone(self.zone).date() - _DAY  # whose hours may go past midnight
        found: list[Iterator[datetime]] = []
        while day <= last:
            found += (self._free_starts_in(opening, visit, since, until) for opening in self._open_spans(day))
            day += _DAY
        for start, _ in groupby(heapq.merge(*found)):
            yield start

    def _free_starts_in(self, opening: Span, visit: Visit, since: datetime, until: datetime) -> Iterator[datetime]:
        start = _next_on_grid(max(opening.start, since))
        while start < until and start + visit.length <= opening.end:
            taken = self._taken_until(visit.occupied(start))
            if taken is None:
                yield start
                start += GRID
            else:
                start = _next_on_grid(taken + visit.before)

    def start_of(self, wanted: datetime, *, visit: Visit, bookable: Bookable) -> datetime:
        """The instant of `wanted`, if the visit can be booked there; otherwise raises `Unbookable`.

        `wanted` is a local time. It may have a UTC offset, which must be the zone's own at that time. The offset is
        needed only in the hour that happens twice when clocks are put back: without it, the person is asked.
        """
        local = wanted.replace(tzinfo=None)
        self._check_distance(local, bookable)
        instants = instants_of(local, self.zone)
        if not instants:
            raise Unbookable(
                f"{local:%H:%M} on {day_name(local)} does not exist in {self.zone.key}, "
                "where the clocks are put forward over it.",
                reason="skipped_hour",
                look_from=first_instant(local, self.zone),
            )
        if wanted.tzinfo is not None:
            instants = tuple(instant for instant in instants if instant == wanted)
            if not instants:
                raise Unbookable(
                    f"{wanted.isoformat(timespec='minutes')} is not a local time of {self.zone.key}.",
                    reason="wrong_offset",
                    look_from=None,
                )
        return self._bookable(local, instants, visit, bookable)

    def with_busy(self, *spans: Span) -> ProviderCalendar:
        """The same calendar where nothing can be booked in these spans either."""
        return replace(self, seats=tuple(tuple(without_overlaps((*seat, *spans))) for seat in self.seats))

    def free_seats(self, occupied: Span) -> Iterator[int]:
        """The seats that are free all that time, by their number from 1."""
        return (number for number, seat in enumerate(self.seats, 1) if _last_in(seat, occupied) is None)

    def check_day(self, day: date, *, bookable: Bookable) -> None:
        """Raises `Unbookable` for a day on which nothing can be booked yet, or not any more."""
        now = bookable.now
        today = now.astimezone(self.zone).date()
        if day < today:
            raise Unbookable(
                f"{day_name(day)} is in the past; today is {day_name(today)}.", reason="past", look_from=now
            )
        if day < bookable.since.astimezone(self.zone).date():
            raise self._too_soon(bookable)
        if day > bookable.until.astimezone(self.zone).date():
            raise self._too_far(datetime.combine(day, time.min), bookable)

    def _bookable(self, local: datetime, instants: tuple[datetime, ...], visit: Visit, bookable: Bookable) -> datetime:
        objections: list[Unbookable] = []
        for instant in instants:
            try:
                self._check(instant, visit, bookable)
            except Unbookable as objection:
                objections.append(objection)
        if len(objections) == len(instants):
            raise objections[0]
        if len(instants) > 1:
            raise Unbookable(
                f"{local:%H:%M} on {day_name(local)} happens twice in {self.zone.key}, where the clocks are put back: "
                f"{' and '.join(iso(instant, self.zone) for instant in instants)}.",
                reason="repeated_hour",
                look_from=None,
                instants=instants,
            )
        return instants[0]

    def _check_distance(self, local: datetime, bookable: Bookable) -> None:
        here = bookable.now.astimezone(self.zone).replace(tzinfo=None)
        # Compared roughly: so far off, a local time may have no instant.
        if local < here - timedelta(days=1):
            raise self._past(local, bookable.now)
        if local > here + bookable.horizon + timedelta(days=1):
            raise self._too_far(local, bookable)

    def _check(self, start: datetime, visit: Visit, bookable: Bookable) -> None:
        local = start.astimezone(self.zone)
        if start < bookable.now:
            raise self._past(local, bookable.now)
        if start < bookable.since:
            raise self._too_soon(bookable)
        if start >= bookable.until:
            raise self._too_far(local, bookable)
        openings = self._open_spans_reaching(local.date())
        if not openings:
            raise Unbookable(f"{self.provider} is closed on {day_name(local)}.", reason="closed", look_from=start)
        if not any(opening.start <= start and start + visit.length <= opening.end for opening in openings):
            hours = " and ".join(dict.fromkeys(map(self._hours, openings)))
            raise Unbookable(
                f"{self.provider} works {hours} on {day_name(local)}; "
                f"{visit.length // _MINUTE} minutes from {local:%H:%M} are not within that.",
                reason="closed",
                look_from=start,
            )
        if _next_on_grid(start) != start:
            raise Unbookable(
                f"Appointments begin at :00, :15, :30 and :45, not at {local:%H:%M}.",
                reason="off_grid",
                look_from=start,
            )
        if self._taken_until(visit.occupied(start)):
            raise self.taken(start)

    def taken(self, start: datetime) -> Unbookable:
        return Unbookable(f"{spoken(start, self.zone)} with {self.provider} is taken.", reason="taken", look_from=start)

    def _past(self, local: datetime, now: datetime) -> Unbookable:
        here = spoken(now, self.zone)
        return Unbookable(
            f"{day_name(local)}, {local:%H:%M} is in the past; it is now {here}.", reason="past", look_from=now
        )

    def _too_soon(self, bookable: Bookable) -> Unbookable:
        first = spoken(bookable.since, self.zone)
        return Unbookable(
            f"That is too soon; the first time that can be booked now is {first}.",
            reason="too_soon",
            look_from=bookable.since,
        )

    def _too_far(self, local: datetime, bookable: Bookable) -> Unbookable:
        last = day_name(bookable.until.astimezone(self.zone))
        return Unbookable(
            f"{day_name(local)} is too far ahead; the last day that can be booked is {last}.",
            reason="too_far",
            look_from=None,
        )

    def _taken_until(self, occupied: Span) -> datetime | None:
        """Until when the last seat is taken that could be free for it first; None if one is free."""
        last = [_last_in(seat, occupied) for seat in self.seats]
        return None if None in last else min(span.end for span in last if span is not None)

    def _hours(self, opening: Span) -> str:
        closes = f"{opening.end.astimezone(self.zone):%H:%M}"
        return f"{opening.start.astimezone(self.zone):%H:%M} to {'24:00' if closes == '00:00' else closes}"

    def _open_spans_reaching(self, day: date) -> list[Span]:
        """The opening hours of `day`, after what those of the day before leave of them past midnight."""
        begins = first_instant(datetime.combine(day, time.min), self.zone)
        night = [opening for opening in self._open_spans(day - _DAY) if opening.end > begins]
        return [*night, *self._open_spans(day)]

    def _open_spans(self, day: date) -> Iterator[Span]:
        """The opening hours that begin on `day`."""
        if day in self.closures:
            return
        midnight = datetime.combine(day, time.min)
        for opening in self.openings:
            if opening.weekday != day.isoweekday():
                continue
            opens = first_instant(midnight + opening.opens * _MINUTE, self.zone)
            closes = last_instant(midnight + opening.closes * _MINUTE, self.zone)
            if opens < closes:
                yield Span(start=opens, end=closes)


def instants_of(local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The instants at which clocks in `zone` show `local`: one, two if they are put back, none if put forward."""
    try:
        folds = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        return tuple(sorted({i for i in folds if i.astimezone(zone).replace(tzinfo=None, fold=0) == local}))
    except OverflowError:  # on the first and last day that a datetime can hold
        return ()


def meant(wanted: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant of a local time that may have an offset; None unless there is exactly one."""
    instants = instants_of(wanted.replace(tzinfo=None), zone)
    if wanted.tzinfo is not None:
        instants = tuple(instant for instant in instants if instant == wanted)
    return instants[0] if len(instants) == 1 else None


def first_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The first instant at which clocks in `zone` show `local`, or the end of the gap if they skip it."""
    return _shown(local, zone)[0]


def last_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """The last instant at which clocks in `zone` show `local`, or the end of the gap if they skip it."""
    return _shown(local, zone)[-1]


def _shown(local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    while not (instants := instants_of(local, zone)):
        local += _MINUTE
    return instants


def _last_in(seat: Sequence[Span], occupied: Span) -> Span | None:
    """The last span that overlaps the other, of spans in order."""
    before = bisect_left(seat, occupied.end, key=_START) - 1
    return seat[before] if before >= 0 and seat[before].overlaps(occupied) else None


def without_overlaps(spans: Iterable[Span]) -> Iterator[Span]:
    """The same time as spans in order, those that overlap joined."""
    joined: Span | None = None
    for span in sorted(spans, key=_START):
        if joined is not None and span.start < joined.end:
            joined = replace(joined, end=max(joined.end, span.end))
            continue
        if joined is not None:
            yield joined
        joined = span
    if joined is not None:
        yield joined


def _next_on_grid(instant: datetime) -> datetime:
    instant = instant.astimezone(UTC)  # in another zone, a sum would be one of its local times
    return instant + (_EPOCH - instant) % GRID


def day_name(day: date) -> str:
    """A day as people say it: `Monday 1 June 2026`."""
    return f"{day:%A} {day.day} {day:%B %Y}"


def spoken(instant: datetime, zone: ZoneInfo) -> str:
    """An instant as people in `zone` say it: `Monday 1 June 2026, 14:30`, with CEST or CET if it happens twice."""
    local = instant.astimezone(zone)
    twice = len(instants_of(local.replace(tzinfo=None, fold=0), zone)) > 1
    return f"{day_name(local)}, {local:%H:%M %Z}" if twice else f"{day_name(local)}, {local:%H:%M}"


def iso(instant: datetime, zone: ZoneInfo) -> str:
    """An instant as a local time of `zone` with its offset, to the minute: `2026-06-01T14:30+02:00`."""
    return instant.astimezone(zone).isoformat(timespec="minutes")
