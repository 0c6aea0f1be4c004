"""Finds the day and time that a text names, relative to a given time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moorline_agents.rehearsal.clock import Clock, find_clock, part_of_day
from moorline_agents.rehearsal.days import find_day, without_weekday

if TYPE_CHECKING:
    from datetime import date, datetime

_GREETING = re.compile(r"\bgood (?:morning|afternoon|evening)\b")
_SOONEST = re.compile(
    r"\b(?:as soon as possible|asap|right away|earliest|soonest|(?:next|first) (?:available|free|possible)|"
    r"any\s?time|any day|whenever)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """A day, a time of day, both or neither; `soonest` says that any will do, the earlier the better."""

    day: date | None = None
    clock: Clock = field(default_factory=Clock)
    soonest: bool = False
    rest: str = field(default="", compare=False)
    """The text without what was read of it."""

    def __bool__(self) -> bool:
        return self.day is not None or bool(self.clock) or self.soonest

    def then(self, later: When) -> When:
        """What is meant after `later` was said too: it replaces the parts it names, and leaves the rest."""
        return When(
            day=later.day or self.day,
            clock=later.clock or self.clock,
            soonest=later.soonest or (self.soonest and not later),
        )


def find_when(text: str, now: datetime) -> When:
    """The day and time that `text` (plain, see `words.plain`) names; `now` is a local time."""
    text = _GREETING.sub(" ", text)
    day, rest = find_day(text, now.date())
    if day is None and re.search(r"\bthis (?:morning|afternoon|evening)\b", text):
        day = now.date()
    part, _ = part_of_day(text)
    clock, rest = find_clock(rest, part)
    _, rest = part_of_day(rest)
    if day is not None:
        rest = without_weekday(rest, day)
    return When(day=day, clock=clock, soonest=_SOONEST.search(rest) is not None, rest=_SOONEST.sub(" ", rest))
