"""Finds the day that a text names, relative to a given day."""

from __future__ import annotations

import re
from calendar import monthrange
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
_NEAR = {"yesterday": -1, "today": 0, "now": 0, "tonight": 0, "tomorrow": 1, "day after tomorrow": 2}
_SMALL_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_ORDINALS = {
    word: number
    for number, word in enumerate(
        (
            *_SMALL_ORDINALS,
            *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth"),
            *("eighteenth", "nineteenth", "twentieth", *(f"twenty {word}" for word in _SMALL_ORDINALS)),
            *("thirtieth", "thirty first"),
        ),
        start=1,
    )
}

_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
_MONTH = rf"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b\.?"
_WORD = "|".join(sorted((word.replace(" ", "[ -]") for word in _ORDINALS), key=len, reverse=True))
_ORDINAL = rf"(\d{{1,2}}|\b(?:{_WORD})\b)(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(\d{4}|2[5-9]|[3-9]\d|(?:this|next) year)\b(?![:.]\d))?"  # two digits that are no hour
_SPAN = rf"(?P<count>{COUNT})\s+(?P<unit>day|week|fortnight|month)s?"
_NOT_A_CHOICE = r"(?!\s+(?:one|option|slot|time))"

_WEEK = timedelta(weeks=1)
_SHORT_YEAR = 100
_DECEMBER = 12
_LEAP_YEARS_APART = 8


def find_day(text: str, today: date) -> tuple[date | None, str]:
    """The day that `text` (in lower case) names, or None, and the text without it.

    A week or a month stands for its first day, and stays in the text: it is more than a day.
    """
    for pattern, meaning in _READINGS:
        for match in pattern.finditer(text):
            try:
                day = meaning(match, today)
            except (ValueError, OverflowError):  # 30 February; a thousand months
                continue
            return day, text if meaning is _period else f"{text[: match.start()]} {text[match.end() :]}"
    return None, text


def without_weekday(text: str, day: date) -> str:
    """The text without the name of that day's weekday: "Friday the 27th"; another weekday contradicts, and stays."""
    names = _WEEKDAY_NAMES[day.weekday()]
    return re.sub(rf"\b(?:{'|'.join(names)})s?\b", " ", text)


def _iso(match: re.Match[str], _: date) -> date:
    return date(int(match[1]), int(match[2]), int(match[3]))


def _numeric(match: re.Match[str], today: date) -> date:
    day, month = int(match[1]), int(match[2])
    if month > _DECEMBER and "/" in match[0]:
        day, month = month, day
    return _dated(day, month, match[3], today)


def _day_month(match: re.Match[str], today: date) -> date:
    return _dated(_number(match[1]), _MONTHS[match[2].rstrip(".")], match[3], today)


def _month_day(match: re.Match[str], today: date) -> date:
    return _dated(_number(match[2]), _MONTHS[match[1].rstrip(".")], match[3], today)


def _number(ordinal: str) -> int:
    return int(ordinal) if ordinal.isdigit() else _ORDINALS[ordinal.replace("-", " ")]


def _dated(day: int, month: int, year: str | None, today: date) -> date:
    if year and year.isdigit():
        number = int(year)
        return date(number + 2000 if number < _SHORT_YEAR else number, month, day)
    if year:
        return date(today.year + (year == "next year"), month, day)
    for ahead in range(_LEAP_YEARS_APART + 1):
        if day <= monthrange(today.year + ahead, month)[1] and (then := date(today.year + ahead, month, day)) >= today:
            return then
    raise ValueError(day)


def _of_month(match: re.Match[str], today: date) -> date:
    """For "the 3rd": the next day with that number, in this month or a later one."""
    number, month = _number(match[1]), today.replace(day=1)
    for _ in range(_DECEMBER):
        day = month + timedelta(days=number - 1)
        if day >= today and day.month == month.month:
            return day
        month = _next_month(month)
    raise ValueError(number)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def _relative(match: re.Match[str], today: date) -> date:
    return today + timedelta(days=_NEAR[match[1]]) + (_WEEK if match[2] else timedelta())


def _ahead(match: re.Match[str], today: date) -> date:
    """For "in two weeks"; with a weekday, that day of that week."""
    day = _after(match, today)
    weekday = match["weekday"] or match["weekday_first"]
    return _in_week_of(day, weekday) if weekday else day


def _from(match: re.Match[str], today: date) -> date:
    """For "two weeks from Monday": so long after the day that is named."""
    base = match["base"]
    if base in _NEAR:
        return _after(match, today + timedelta(days=_NEAR[base]))
    return _after(match, _next(base, today))


def _after(match: re.Match[str], day: date) -> date:
    """The day so long after `day`: a month later it has the same number, or is the last of its month."""
    count, unit = value(match["count"]), match["unit"]
    if unit != "month":
        return day + timedelta(days=count * _DAYS_IN[unit])
    year, month = divmod(day.year * _DECEMBER + day.month - 1 + count, _DECEMBER)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _weekday_week(match: re.Match[str], today: date) -> date:
    """For "Friday week": a week after the next Friday."""
    return _next(match[1], today) + timedelta(days=_DAYS_IN[match[2]])


def _last_day(match: re.Match[str], today: date) -> date:
    first = _month_named(match[1] or match[2], today)
    return first.replace(day=monthrange(first.year, first.month)[1])


def _nth_weekday(match: re.Match[str], today: date) -> date:
    """For "the second Tuesday in July", and "the last Friday of the month"."""
    first = _month_named(match[3] or match[4], today)
    days = [first + timedelta(days=number) for number in range(monthrange(first.year, first.month)[1])]
    fitting = [day for day in days if day.weekday() == _WEEKDAYS[match[2]]]
    day = fitting[-1] if match[1] == "last" else fitting[_ORDINALS[match[1]] - 1]
    if day < today:
        raise ValueError(day)
    return day


def _month_named(name: str, today: date) -> date:
    """The first day of the month."""
    if name in ("the", "this"):
        return today.replace(day=1)
    if name == "next":
        return _next_month(today)
    month = _MONTHS[name.rstrip(".")]
    return date(today.year + (month < today.month), month, 1)


def _next(weekday: str, today: date) -> date:
    return today + timedelta(days=(_WEEKDAYS[weekday] - today.weekday() - 1) % 7 + 1)


def _weekday(match: re.Match[str], today: date) -> date:
    if "next" in (match["which"], match["week"], match["week_first"]):
        return _in_week_of(today + _WEEK, match["weekday"])
    if match["which"] == "this":
        return today + timedelta(days=(_WEEKDAYS[match["weekday"]] - today.weekday()) % 7)
    return _next(match["weekday"], today)


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
        (rf"\b(?:the\s+)?{_ORDINAL}\s+(?:of\s+)?({_MONTH}){_YEAR}", _day_month),
        (rf"\b({_MONTH})\s+(?:the\s+)?{_ORDINAL}\b(?!:){_YEAR}", _month_day),
        (
            rf"\b(?:(?P<weekday_first>{_WEEKDAY})\s+)?in\s+{_SPAN}\b(?:\s+time\b)?(?:\s+on\s+(?P<weekday>{_WEEKDAY})\b)?",
            _ahead,
        ),
        (rf"\b{_SPAN}\s+(?:from|after|on)\s+(?P<base>now|today|tomorrow|{_WEEKDAY})\b", _from),
        (rf"\b({_WEEKDAY})\s+(week|fortnight)\b", _weekday_week),
        (rf"\b(?:the\s+)?(?:end|last day) of\s+(?:(the|this|next) month\b|({_MONTH}))", _last_day),
        (
            rf"\b(?:the\s+)?({'|'.join((*_SMALL_ORDINALS[:5], 'last'))})\s+({_WEEKDAY})\s+(?:in|of)\s+"
            rf"(?:(the|this|next) month\b|({_MONTH}))",
            _nth_weekday,
        ),
        (r"\b(?:the\s+)?(day after tomorrow|tomorrow|today|tonight|yesterday)\b(\s+week\b)?", _relative),
        (r"\bon the (\d{1,2})(?:st|nd|rd|th)?\b" + _NOT_A_CHOICE, _of_month),
        (rf"\bthe (\d{{1,2}})(?:st|nd|rd|th)\b{_NOT_A_CHOICE}", _of_month),
        (
            rf"\b(?:(?P<week_first>next|this)\s+week\s+(?:on\s+)?)?(?:(?P<which>next|this|coming)\s+)?"
            rf"(?P<weekday>{_WEEKDAY})s?\b(?:\s+(?:of\s+)?(?P<week>next|this)\s+week\b)?",
            _weekday,
        ),
        (r"\b(this|next)\s+(week|weekend|month)\b", _period),
    )
)
