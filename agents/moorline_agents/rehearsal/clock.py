"""Finds the time of day that a text names: a single time, or a part of the day."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import time

from moorline_agents.rehearsal.numbers import HOUR, value

_NOON = 12
_LAST_HOUR_MEANT_PM = 6  # nobody books for half past four in the morning
_NIGHT = time(20)
_LAST_HOUR_OF_NIGHT = 5
_HOUR = 60
_DAY = 24 * _HOUR
_PARTS = (
    (r"(?:early )?morning", None, time(12)),
    (r"afternoon", time(12), time(18)),
    (r"evening|tonight|after work", time(17), None),
    (r"lunch\s?(?:time|break)?", time(12), time(14)),
    (r"night", _NIGHT, None),
)
_OFFSETS = {"half": 30, "quarter": 15, "a quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty five": 25}
_SPOKEN = {"fifteen": 15, "thirty": 30, "forty five": 45}
_PREFIXES = (
    *("at", "@", "by", "after", "later than", "not before", "before", "earlier than", "until", "till", "since"),
    *("from", "between", "around", "about", "round about", "make it", "to", "and", "or"),
)


def _any(words: Iterable[str]) -> str:
    """A pattern that matches any of `words`, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_CLOCK = re.compile(
    rf"""
    (?:(?<![\w-])(?P<prefix>{_any(_PREFIXES)})\s+ (?:the\s+)?)?
    (?<![\w:.-])
    (?:
        (?P<word>noon|midday|midnight)
      | (?P<offset>{_any(_OFFSETS)})\s+(?P<side>past|to)\s+(?P<base>{HOUR})
      | (?P<hour>{HOUR})
        (?:[:.](?P<minute>\d\d)(?!\.?\d) | \s(?P<spoken>{_any(_SPOKEN)}))?
        (?P<oclock>\s?oclock|(?=\s+(?:in\s+the\s+(?:morning|afternoon|evening)|at\s+night)\b))?
      | (?P<hour_h>\d{{1,2}})h(?P<minute_h>\d\d)?
      | (?P<military>[01]\d[0-5]\d|2[0-3][0-5]\d)(?:\s?(?P<hours>hours|hrs|h)\b)?
    )
    (?:\s?(?P<half>[ap])\.?m\b\.?)?
    (?![\w:]|-(?!\d)|\s(?:minutes?|mins?|hours?|days?|weeks?|people|persons?|times)\b)
    """,
    re.VERBOSE,
)
_HALF = re.compile(rf"\bhalf ({HOUR})\b")  # half an hour before three, or after it: that depends on the country
_ALONE = re.compile(rf"\W*(?:{HOUR}|\d{{4}})\W*(?:please|then|is fine|is good|works|would be great|sounds good)?\W*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A time of day, or the part of the day from `after` until before `before`."""

    at: time | None = None
    after: time | None = None
    before: time | None = None

    def __bool__(self) -> bool:
        return self != Clock()


def part_of_day(text: str) -> tuple[Clock, str]:
    """Morning, afternoon, evening, lunchtime or night, and the text without it; an empty `Clock` for none."""
    for words, after, before in _PARTS:
        pattern = re.compile(rf"\b(?:in the |at |this )?(?:{words})s?\b")
        if pattern.search(text):
            return Clock(after=after, before=before), pattern.sub(" ", text)
    return Clock(), text


def find_clock(text: str, part: Clock) -> tuple[Clock, str]:
    """The times that `text` (in lower case, without its day) names, or else `part`, the part of the day it names; and
    the text without them. What is ambiguous, or one time too many, stays in the text."""
    read, rest = Clock(), text
    open_range = False
    alone = _ALONE.fullmatch(text) is not None
    for match in _CLOCK.finditer(text):
        if not (alone or _is_time(match, open_range=open_range)):
            continue
        found = _time(match, part)
        if found is None:
            continue
        before, read = read, _with(read, match["prefix"], found, open_range=open_range)
        open_range = match["prefix"] in ("between", "from")
        if read != before and not text.startswith("-", match.end()):
            rest = f"{rest[: match.start()]}{' ' * len(match[0])}{rest[match.end() :]}"
    if half := _HALF.search(rest):
        read = read if read else Clock(at=_clock(_hour(half[1], None, part) * _HOUR - _HOUR // 2))
    if read.after and read.before and read.before <= read.after and read.before.hour < _NOON:
        read = replace(read, before=read.before.replace(hour=read.before.hour + _NOON))
    return read or part, rest


def _is_time(match: re.Match[str], *, open_range: bool) -> bool:
    """Whether a match is a time: a number alone is one only after a word that says so."""
    if match["military"]:
        return bool(match["prefix"] or match["hours"])
    if match["hour"] is None or match["minute"] or match["spoken"] or match["half"]:
        return True
    if match["oclock"] is not None:
        return True
    if match["prefix"] in ("and", "or", "to"):
        return open_range or match["prefix"] == "to"
    return match["prefix"] is not None


def _time(match: re.Match[str], part: Clock) -> time | None:
    if match["word"]:
        return time(0) if match["word"] == "midnight" else time(_NOON)
    if match["military"]:
        return time(int(match["military"][:2]), int(match["military"][2:]))
    base = match["base"] or match["hour"] or match["hour_h"]
    minutes = int(match["minute"] or match["minute_h"] or _SPOKEN.get(match["spoken"] or "", 0))
    hour = int(base) if match["hour_h"] else _hour(base, match["half"], part)
    if hour * _HOUR >= _DAY or minutes >= _HOUR:
        return None
    offset = _OFFSETS.get(match["offset"], 0)
    return _clock(hour * _HOUR + minutes + (offset if match["side"] == "past" else -offset))


def _clock(minutes: int) -> time:
    hour, minute = divmod(minutes % _DAY, _HOUR)
    return time(hour, minute)


def _hour(written: str, half: str | None, part: Clock) -> int:
    hour = value(written)
    if half is not None:
        return hour % _NOON + (_NOON if half == "p" else 0) if hour <= _NOON else hour
    if hour >= _NOON or written.startswith("0"):
        return hour
    if part.after == _NIGHT:
        return hour + _NOON if hour > _LAST_HOUR_OF_NIGHT else hour
    late = part.after is not None
    early = part.before is not None and not late
    return hour + _NOON if late or (hour <= _LAST_HOUR_MEANT_PM and not early) else hour


def _with(read: Clock, prefix: str | None, found: time, *, open_range: bool) -> Clock:
    match prefix:
        case "after" | "from" | "since" | "between" | "later than" | "not before":
            return replace(read, after=found)
        case "before" | "until" | "till" | "by" | "earlier than":
            return replace(read, before=found)
        case "to" | "and" if open_range:
            return replace(read, before=found)
        case "around" | "about" | "round about":
            minutes = found.hour * _HOUR + found.minute
            return replace(read, after=_clock(minutes - _HOUR), before=_clock(minutes + _HOUR + 1))
        case _:
            return replace(read, at=read.at or found)
