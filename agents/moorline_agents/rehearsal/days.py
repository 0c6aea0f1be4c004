"""Finds the day that a text names, relative to a given day."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING

from moorline_agents.rehearsal.numbers import COUNT, value

if TYPE_CHECKING:
    from collections.abc import Callable

_WEEKDAY_NAMES = (
    ("monday", "mon"),
    ("tuesday", "tues", "tue"),
    ("wednesday", "wed"),
    ("thursday", "thurs", "thur", "thu"),
    ("friday", "fri"),
    ("saturday",),  # not sat and sun, which are also ordinary words
    ("sunday",),
)
_WEEKDAYS = {name: number for number, names in enumerate(_WEEKDAY_NAMES) for name in names}
_MONTH_NAMES = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTHS = {written: number for number, name in enumerate(_MONTH_NAMES, start=1) for written in (name, name[:3])} | {
    "sept": 9
}
_DAYS_IN = {"day": 1, "week": 7, "fortnight": 14}

_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
_MONTH = rf"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b\.?"
_ORDINAL = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(\d{4})\b)?"
_SPAN = rf"(?P<count>{COUNT})\s+(?P<unit>day|week|fortnight|month)s?"
_NOT_A_CHOICE = r"(?!\s+(?:one|option|slot|time))"

_WEEK = timedelta(weeks=1)
_SHORT_YEAR = 100
_DECEMBER = 12
_SHORTEST_MONTH = 28


def find_day(text: str, today: date) -> tuple[date | None, str]:
    """The day that `text` (in lower case) names, or None, and the text without it."""
    for pattern, meaning in _READINGS:
        for match in pattern.finditer(text):
            try:
                day = meaning(match, today)
            except (ValueError, OverflowError):  # 30 February; a thousand months
                continue
            return day, f"{text[: match.start()]} {text[match.end() :]}"
    return None, text


def _iso(match: re.Match[str], _: date) -> date:
    return date(int(match[1]), int(match[2]), int(match[3]))


def _numeric(match: re.Match[str], today: date) -> date:
    day, month = int(match[1]), int(match[2])
    if month > _DECEMBER and "/" in match[0]:
        day, month = month, day
    return _dated(day, month, match[3], today)


def _day_month(match: re.Match[str], today: date) -> date:
    return _dated(int(match[1]), _MONTHS[match[2].rstrip(".")], match[3], today)


def _month_day(match: re.Match[str], today: date) -> date:
    return _dated(int(match[2]), _MONTHS[match[1].rstrip(".")], match[3], today)


def _dated(day: int, month: int, year: str | None, today: date) -> date:
    if year:
        number = int(year)
        return date(number + 2000 if number < _SHORT_YEAR else number, month, day)
    this_year = date(today.year, month, day)
    return this_year if this_year >= today else date(today.year + 1, month, day)


def _of_month(match: re.Match[str], today: date) -> date:
    """For "the 3rd": the next day with that number, in this month or a later one."""
    number, month = int(match[1]), today.replace(day=1)
    for _ in range(_DECEMBER):
        day = month + timedelta(days=number - 1)
        if day >= today and day.month == month.month:
            return day
        month = _next_month(month)
    raise ValueError(number)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _relative(match: re.Match[str], today: date) -> date:
    days = {"yesterday": -1, "today": 0, "tonight": 0, "tomorrow": 1, "day after tomorrow": 2}
    return today + timedelta(days=days[match[1]])


def _ahead(match: re.Match[str], today: date) -> date:
    """For "in two weeks"; with a weekday, that day of that week."""
    count, unit = value(match["count"]), match["unit"]
    if unit == "month":
        day = today
        for _ in range(count):
            day = _next_month(day)
        return day.replace(day=min(today.day, _SHORTEST_MONTH))
    day = today + timedelta(days=count * _DAYS_IN[unit])
    weekday = match.groupdict().get("weekday") or match.groupdict().get("weekday_first")
    return _in_week_of(day, weekday) if weekday else day


def _weekday(match: re.Match[str], today: date) -> date:
    if "next" in (match["which"], match["week"], match["week_first"]):
        return _in_week_of(today + _WEEK, match["weekday"])
    ahead = _WEEKDAYS[match["weekday"]] - today.weekday()
    if match["which"] == "this":
        return today + timedelta(days=ahead % 7)
    return today + timedelta(days=(ahead - 1) % 7 + 1)


def _in_week_of(day: date, weekday: str) -> date:
    return day + timedelta(days=_WEEKDAYS[weekday] - day.weekday())


def _period(match: re.Match[str], today: date) -> date:
    """A week, a weekend or a month stands for its first day that is not over."""
    which, period = match[1], match[2]
    if period == "month":
        return today if which == "this" else _next_month(today)
    first = "saturday" if period == "weekend" else "monday"
    return max(today, _in_week_of(today if which == "this" else today + _WEEK, first))


# The order matters: a pattern that matches more of the text comes before one that would match only part of it.
_READINGS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], date]], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"\b(\d{4})-(\d{2})-(\d{2})(?:\b|t(?=\d))", _iso),
        (r"(?<!at )\b(\d{1,2})\.(\d{1,2})\.(\d{4}|\d{2}(?!\d))?", _numeric),
        (r"\b(\d{1,2})/(\d{1,2})(?:/(\d{4}|\d{2}))?\b", _numeric),
        (rf"\b{_ORDINAL}\s+(?:of\s+)?({_MONTH}){_YEAR}", _day_month),
        (rf"\b({_MONTH})\s+(?:the\s+)?{_ORDINAL}\b(?!:){_YEAR}", _month_day),
        (
            rf"\b(?:(?P<weekday_first>{_WEEKDAY})\s+)?in\s+{_SPAN}\b(?:\s+time\b)?(?:\s+on\s+(?P<weekday>{_WEEKDAY})\b)?",
            _ahead,
        ),
        (rf"\b{_SPAN}\s+from\s+(?:now|today)\b", _ahead),
        (r"\b(day after tomorrow|tomorrow|today|tonight|yesterday)\b", _relative),
        (rf"\bon the {_ORDINAL}\b{_NOT_A_CHOICE}", _of_month),
        (rf"\bthe (\d{{1,2}})(?:st|nd|rd|th)\b{_NOT_A_CHOICE}", _of_month),
        (
            rf"\b(?:(?P<week_first>next|this)\s+week\s+(?:on\s+)?)?(?:(?P<which>next|this|coming)\s+)?"
            rf"(?P<weekday>{_WEEKDAY})s?\b(?:\s+(?:of\s+)?(?P<week>next|this)\s+week\b)?",
            _weekday,
        ),
        (r"\b(this|next)\s+(week|weekend|month)\b", _period),
    )
)
