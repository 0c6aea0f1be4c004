"""Days and times as people say them, seen from Sunday 22 November 2026, 15:44."""

from datetime import date, datetime, time

import pytest

from moorline_agents.rehearsal.clock import Clock
from moorline_agents.rehearsal.dates import When, find_when
from moorline_agents.rehearsal.words import plain

NOW = datetime.fromisoformat("2026-11-22T15:44:00+01:00")


def when(text: str) -> When:
    return find_when(plain(text), NOW)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", "2026-11-22"),
        ("tonight", "2026-11-22"),
        ("this afternoon", "2026-11-22"),
        ("tomorrow", "2026-11-23"),
        ("the day after tomorrow", "2026-11-24"),
        ("yesterday", "2026-11-21"),
        ("Monday", "2026-11-23"),
        ("on Monday's", "2026-11-23"),
        ("Saturday", "2026-11-28"),
        ("Sunday", "2026-11-29"),
        ("this Sunday", "2026-11-22"),
        ("next Friday", "2026-11-27"),
        ("this Friday", "2026-11-27"),
        ("Tuesday next week", "2026-11-24"),
        ("next week on Tuesday", "2026-11-24"),
        ("next week", "2026-11-23"),
        ("this weekend", "2026-11-22"),
        ("next weekend", "2026-11-28"),
        ("next month", "2026-12-01"),
        ("in two weeks", "2026-12-06"),
        ("in 2 weeks' time", "2026-12-06"),
        ("a week from today", "2026-11-29"),
        ("in a fortnight", "2026-12-06"),
        ("in three days", "2026-11-25"),
        ("in a couple of days", "2026-11-24"),
        ("in a month", "2026-12-22"),
        ("in two weeks on Tuesday", "2026-12-01"),
        ("Tuesday in two weeks", "2026-12-01"),
        ("on the 3rd of March", "2027-03-03"),
        ("March 3rd", "2027-03-03"),
        ("3 March 2028", "2028-03-03"),
        ("December 24", "2026-12-24"),
        ("Dec. 24th, 2026", "2026-12-24"),
        ("22 November", "2026-11-22"),
        ("21 November", "2027-11-21"),
        ("the 3rd", "2026-12-03"),
        ("on the 25", "2026-11-25"),
        ("on the 31st", "2026-12-31"),
        ("Monday the 7th", "2026-12-07"),
        ("2026-12-01", "2026-12-01"),
        ("24/12/2026", "2026-12-24"),
        ("24/12", "2026-12-24"),
        ("12/24/2026", "2026-12-24"),
        ("23.12.", "2026-12-23"),
        ("23.12.2027", "2027-12-23"),
        ("may I come on 5 May", "2027-05-05"),
    ],
)
def test_a_day(text: str, day: str) -> None:
    assert when(text).day == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("10:30", "10:30"),
        ("at 10.30.", "10:30"),
        ("at 10", "10:00"),
        ("10", "10:00"),
        ("10 please", "10:00"),
        ("make it 10", "10:00"),
        ("10am", "10:00"),
        ("9 a.m.", "09:00"),
        ("9:15 pm", "21:15"),
        ("12 pm", "12:00"),
        ("12 am", "00:00"),
        ("at 16:00", "16:00"),
        ("11 o'clock", "11:00"),
        ("two pm", "14:00"),
        ("at two", "14:00"),
        ("at 8", "08:00"),
        ("at 6", "18:00"),
        ("at 06:00", "06:00"),
        ("half past two", "14:30"),
        ("quarter to five", "16:45"),
        ("a quarter past 9", "09:15"),
        ("ten to twelve", "11:50"),
        ("ten thirty", "10:30"),
        ("noon", "12:00"),
        ("at midday", "12:00"),
        ("midnight", "00:00"),
        ("at 3 in the afternoon", "15:00"),
        ("7 in the evening", "19:00"),
        ("5 in the morning", "05:00"),
        ("to 11", "11:00"),
    ],
)
def test_a_time(text: str, at: str) -> None:
    assert when(text) == When(clock=Clock(at=time.fromisoformat(at)))


@pytest.mark.parametrize(
    ("text", "after", "before"),
    [
        ("in the morning", None, "12:00"),
        ("afternoon", "12:00", "18:00"),
        ("in the evening", "17:00", None),
        ("at lunchtime", "12:00", "14:00"),
        ("after work", "17:00", None),
        ("after 3pm", "15:00", None),
        ("before noon", None, "12:00"),
        ("between 2 and 4", "14:00", "16:00"),
        ("from 9 to 12", "09:00", "12:00"),
        ("from 9 to 5", "09:00", "17:00"),
        ("around 3", "14:00", "16:01"),
        ("not before 10", "10:00", None),
    ],
)
def test_a_part_of_the_day(text: str, after: str | None, before: str | None) -> None:
    assert when(text).clock == Clock(
        after=time.fromisoformat(after) if after else None, before=time.fromisoformat(before) if before else None
    )


@pytest.mark.parametrize(
    ("text", "day", "at"),
    [
        ("tomorrow at 10", "2026-11-23", "10:00"),
        ("Monday 9am", "2026-11-23", "09:00"),
        ("on the 3rd of March at 14:30", "2027-03-03", "14:30"),
        ("at half past two on Friday", "2026-11-27", "14:30"),
        ("2026-12-01T10:00", "2026-12-01", "10:00"),
        ("23.12. at 10.30", "2026-12-23", "10:30"),
        ("March 3rd, 2027 at ten thirty", "2027-03-03", "10:30"),
        ("tonight at 8", "2026-11-22", "20:00"),
        ("on 5 May at 3 o'clock", "2027-05-05", "15:00"),
    ],
)
def test_a_day_and_a_time(text: str, day: str, at: str) -> None:
    assert when(text) == When(day=date.fromisoformat(day), clock=Clock(at=time.fromisoformat(at)))


def test_next_means_the_week_after_this_one() -> None:
    monday = datetime.fromisoformat("2026-11-23T09:00:00+01:00")
    assert find_when("friday", monday).day == date(2026, 11, 27)
    assert find_when("next friday", monday).day == date(2026, 12, 4)
    assert find_when("this monday", monday).day == date(2026, 11, 23)
    assert find_when("monday", monday).day == date(2026, 11, 30)


@pytest.mark.parametrize("text", ["as soon as possible", "ASAP", "the next available one", "any time"])
def test_any_time_will_do(text: str) -> None:
    assert when(text) == When(soonest=True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "hello", "good morning", "for 2 people", "it takes 30 minutes", "the third one", "the 3rd one", "at 25"),
        *("call me on 0123456789", "I have 2 kids", "30 February", "99/99", "2026-13-45", "mayor", "Marc"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert not when(text)
