"""Times as people write them, seen from Wednesday 10 June 2026, 10:00: read wholly and rightly, or asked about."""

from datetime import date, datetime, time

import pytest

from moorline_agents.rehearsal.dates import When, find_when
from moorline_agents.rehearsal.unread import unread
from moorline_agents.rehearsal.words import plain

NOW = datetime(2026, 6, 10, 10, 0)

DAYS = {
    "today": "2026-06-10",
    "tomorrow": "2026-06-11",
    "the day after tomorrow": "2026-06-12",
    "Monday": "2026-06-15",
    "Friday": "2026-06-12",
    "on Wednesday": "2026-06-17",
    "this Friday": "2026-06-12",
    "next Friday": "2026-06-19",
    "next Tuesday": "2026-06-16",
    "Friday next week": "2026-06-19",
    "next week on Friday": "2026-06-19",
    "a week from Friday": "2026-06-19",
    "Friday week": "2026-06-19",
    "a week on Friday": "2026-06-19",
    "two weeks from Monday": "2026-06-29",
    "two weeks on Monday": "2026-06-29",
    "in two weeks on Monday": "2026-06-22",
    "Monday in two weeks": "2026-06-22",
    "a week from today": "2026-06-17",
    "a week from tomorrow": "2026-06-18",
    "in a week": "2026-06-17",
    "in 2 weeks": "2026-06-24",
    "in two weeks' time": "2026-06-24",
    "in a fortnight": "2026-06-24",
    "in three days": "2026-06-13",
    "three days from now": "2026-06-13",
    "in a couple of days": "2026-06-12",
    "in a month": "2026-07-10",
    "in two months": "2026-08-10",
    "a month from now": "2026-07-10",
    "in ten days": "2026-06-20",
    "two days after tomorrow": "2026-06-13",
    "12 June": "2026-06-12",
    "June 12": "2026-06-12",
    "June 12th": "2026-06-12",
    "12th of June": "2026-06-12",
    "the 12th of June": "2026-06-12",
    "on the 12th": "2026-06-12",
    "the 12th": "2026-06-12",
    "on the 31st": "2026-07-31",
    "12.6.": "2026-06-12",
    "12.6.2026": "2026-06-12",
    "12/06/2026": "2026-06-12",
    "13/6": "2026-06-13",
    "6/13": "2026-06-13",
    "2026-06-12": "2026-06-12",
    "5 May": "2027-05-05",
    "May 5th, 2027": "2027-05-05",
    "12 May next year": "2027-05-12",
    "13 July '27": "2027-07-13",
    "second of July": "2026-07-02",
    "the second of July": "2026-07-02",
    "Feb 29 2028": "2028-02-29",
    "Monday 15 June": "2026-06-15",
    "Monday the 15th": "2026-06-15",
    "Friday, June 12": "2026-06-12",
    "the first of July": "2026-07-01",
    "Fri 12 Jun": "2026-06-12",
    "end of the month": "2026-06-30",
    "the last day of June": "2026-06-30",
    "first Monday in July": "2026-07-06",
    "the last Friday of the month": "2026-06-26",
    "the second Tuesday in July": "2026-07-14",
}
TIMES = {
    "at 10": "10:00",
    "at 10:30": "10:30",
    "10.30": "10:30",
    "at 2pm": "14:00",
    "at 2 p.m.": "14:00",
    "2:30 pm": "14:30",
    "at 2.30pm": "14:30",
    "12pm": "12:00",
    "12am": "00:00",
    "12:30 am": "00:30",
    "noon": "12:00",
    "midday": "12:00",
    "midnight": "00:00",
    "half past two": "14:30",
    "half past 9": "09:30",
    "quarter to 3": "14:45",
    "quarter past eleven": "11:15",
    "ten to twelve": "11:50",
    "twenty past 4": "16:20",
    "11 o'clock": "11:00",
    "eleven o'clock": "11:00",
    "ten thirty": "10:30",
    "three thirty": "15:30",
    "14h30": "14:30",
    "at 14h30": "14:30",
    "14h": "14:00",
    "1430": "14:30",
    "at 1430": "14:30",
    "at 1430 hours": "14:30",
    "16:00": "16:00",
    "at two": "14:00",
    "at 9 in the morning": "09:00",
    "at 3 in the afternoon": "15:00",
    "at 9 in the evening": "21:00",
    "8 at night": "20:00",
    "at 13pm": "13:00",
    "five past ten": "10:05",
    "at 9am sharp": "09:00",
}
DAYS_AND_TIMES = {
    "tomorrow at 10": "2026-06-11 10:00",
    "tomorrow at 2pm": "2026-06-11 14:00",
    "Monday 9am": "2026-06-15 09:00",
    "Friday at half past two": "2026-06-12 14:30",
    "half past two on Friday": "2026-06-12 14:30",
    "June 12 at 14:30": "2026-06-12 14:30",
    "12 June 2026 14:30": "2026-06-12 14:30",
    "2026-06-12 14:30": "2026-06-12 14:30",
    "2026-06-12T14:30": "2026-06-12 14:30",
    "12.6. at 10.30": "2026-06-12 10:30",
    "tonight at 8": "2026-06-10 20:00",
    "noon tomorrow": "2026-06-11 12:00",
    "tomorrow noon": "2026-06-11 12:00",
    "next Friday at 3": "2026-06-19 15:00",
    "two weeks from Monday at 10:00": "2026-06-29 10:00",
    "Friday week at 11:00": "2026-06-19 11:00",
    "on the 12th at quarter to 3": "2026-06-12 14:45",
    "in three days at 16:00": "2026-06-13 16:00",
    "in a month at 10": "2026-07-10 10:00",
    "Monday 15 June 2026 at 9:15 am": "2026-06-15 09:15",
    "tomorrow morning at 9": "2026-06-11 09:00",
    "Please book a haircut with Ana two weeks from Monday at 10:00": "2026-06-29 10:00",
    "Please book a haircut with Ana on Monday at 16:00": "2026-06-15 16:00",
    "May I come on 5 May at 3?": "2027-05-05 15:00",
    "I'd like an appointment on Friday week at 11": "2026-06-19 11:00",
    "Can I come in at 3 tomorrow?": "2026-06-11 15:00",
    "a haircut in a month, at 10": "2026-07-10 10:00",
}
ASKED = [
    "half 3",
    "in an hour",
    "in half an hour",
    "in 45 minutes",
    "Could I get a beard trim for 2 people tomorrow at 11?",
    "I need a 30 minute consultation on Thursday at 9",
    "morgen um 10 Uhr",
    "am Freitag um 14 Uhr",
    "übermorgen um halb drei",
    "heute um 16:30",
    "nächsten Dienstag",
    "am 12. Juni um 9:15",
    "in zwei Wochen",
    "viertel nach acht",
    "demain à 14h30",
    "vendredi à 10h",
    "après-demain à midi",
    "le 12 juin à 9h15",
    "dans deux semaines",
    "mañana a las 10",
    "el viernes a las 16:00",
    "el 12 de junio",
    "pasado mañana",
    "domani alle 15",
    "venerdì prossimo alle 10",
    "amanhã às 10h",
    "overmorgen om 10 uur",
    "hello",
    "for 2 people",
    "it takes 30 minutes",
    "the third one",
    "call me on 0123456789",
    "I have 2 kids",
    "I sat down",
    "may I come?",
    "30 February",
    "31 June",
    "at 25:00",
    "99/99",
    "2026-13-45",
    "Marc",
    "the sun is out",
    "tomorrow at 3 or Friday at 4",
    "not on Monday",
    "any day but Friday",
    "mon mari",
    "second thoughts",
    "March past the shop",
    "a 9 to 5 job",
    "on 5",
    "21 is my lucky number",
    "I was there last week",
]


def read(text: str) -> tuple[When, tuple[str, ...]]:
    """What is read, and the words that are left."""
    when = find_when(plain(text), NOW)
    return when, unread(when.rest, cancels=False)


def test_there_are_enough_of_them() -> None:
    assert len(DAYS) + len(TIMES) + len(DAYS_AND_TIMES) + len(ASKED) > 150


@pytest.mark.parametrize("text", DAYS)
def test_a_day_is_read_wholly(text: str) -> None:
    when, left = read(text)
    assert (when.day, left) == (date.fromisoformat(DAYS[text]), ())


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_read_wholly(text: str) -> None:
    when, left = read(text)
    assert (when.clock.at, left) == (time.fromisoformat(TIMES[text]), ())


@pytest.mark.parametrize("text", DAYS_AND_TIMES)
def test_a_day_and_a_time_are_read_rightly(text: str) -> None:
    when, left = read(text)
    assert when.day is not None
    assert when.clock.at is not None
    assert datetime.combine(when.day, when.clock.at) == datetime.fromisoformat(DAYS_AND_TIMES[text])
    assert set(left) <= {"ana"}, "a name is known only later"


@pytest.mark.parametrize("text", ASKED)
def test_of_the_rest_something_is_left_or_nothing_was_read(text: str) -> None:
    when, left = read(text)
    assert left or not when
