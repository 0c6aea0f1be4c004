"""The rehearsal never acts on half a sentence: of what it cannot read wholly it says what it understood, and asks."""

import pytest

from moorline_agents.rehearsal.dialogue import UNSURE

from .conftest import Person


@pytest.mark.parametrize(
    ("said", "start"),
    [
        ("two weeks from Monday at 10:00", "2026-12-07T10:00"),
        ("a week from Friday at 10:00", "2026-12-04T10:00"),
        ("on Friday week at 11:00", "2026-12-04T11:00"),
        ("in two weeks on Monday at 10:00", "2026-11-30T10:00"),
        ("in a month at 10", "2026-12-22T10:00"),
        ("tomorrow at 14h30", "2026-11-23T14:30"),
        ("on the first of December at 1430", "2026-12-01T14:30"),
        ("on Friday the 27th at 16:00", "2026-11-27T16:00"),
    ],
)
async def test_what_is_read_wholly_is_booked(person: Person, said: str, start: str) -> None:
    await person.say(f"Please book a haircut with Ana {said}")
    assert await person.booked() == [("Haircut", "Ana", start)]


@pytest.mark.parametrize(
    "said",
    [
        *("the Monday after next at 10:00", "not on Monday but at 10:00", "Monday or Tuesday at 10:00"),
        *("every Monday at 10:00", "on Monday at 10:00 or 11:00", "next week at 10:00"),
        *(
            "on Tuesday the 23rd at 10:00",
            "on Tuesday at half 3",
            "Tuesday at 9-10",
            "Tuesday at 10:00 for my two kids",
        ),
        *("übermorgen, Monday 10:00", "Montag, d.h. Tuesday 10:00", "Tuesday at 10:00, mais pas le matin"),
        *("martes, Tuesday 10:00", "on Tuesday at 10:00 unless it rains", "three Mondays from now at 10:00"),
        *("Monday at 10:00 " + "please " * 100 + "but not this week", "the week of Monday at 10:00"),
        *("a fortnight after Easter Monday at 10:00", "last Monday at 10:00", "Monday minus a week at 10:00"),
    ],
)
async def test_what_is_not_read_wholly_is_asked_about(person: Person, said: str) -> None:
    answer = await person.say(f"Please book a haircut with Ana {said}")
    assert await person.booked() == []
    assert answer.text.startswith(UNSURE)
    assert "Shall I book Haircut with Ana on" in answer.text
    assert "in digits" in answer.text


@pytest.mark.parametrize(
    "said",
    [
        *(
            "Ich möchte übermorgen um halb drei einen Haarschnitt bei Ana",
            "Haircut bei Ana nächsten Dienstag um 10 Uhr",
        ),
        *("Je voudrais un haircut avec Ana demain à 14h30", "Un haircut con Ana el viernes a las 16:00"),
        *(
            "Un haircut con Ana domani alle 15",
            "Een haircut bij Ana overmorgen om 10 uur",
            "明日の10時にhaircut",
            "Book a haircut any day but Tuesday at 10:00",
        ),
    ],
)
async def test_other_languages_are_never_half_understood(person: Person, said: str) -> None:
    answer = await person.say(said)
    assert await person.booked() == []
    assert answer.text or answer.calls


async def test_a_yes_books_what_was_asked(person: Person) -> None:
    asked = await person.say("Book a haircut with Ana on Tuesday, übermorgen, at half 3")
    assert "Shall I book Haircut with Ana on Tuesday 24 November 2026, 14:30?" in asked.text
    await person.say("yes please")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-24T14:30")]


async def test_a_yes_that_says_more_is_asked_again(person: Person) -> None:
    await person.say("Book a haircut with Ana on Tuesday, übermorgen, at 10")
    answer = await person.say("Yes, aber um elf")
    assert answer.text.startswith(UNSURE)
    assert await person.booked() == []


async def test_a_no_books_nothing(person: Person) -> None:
    await person.say("Book a haircut with Ana on Tuesday, übermorgen, at 10")
    await person.say("no")
    assert await person.booked() == []


async def test_digits_settle_it(person: Person) -> None:
    await person.say("Book a haircut with Ana on Tuesday, übermorgen, at 10")
    await person.say("2026-12-01 10:30")
    assert await person.booked() == [("Haircut", "Ana", "2026-12-01T10:30")]


async def test_what_was_not_understood_is_not_forgotten_by_an_answer_to_something_else(person: Person) -> None:
    answer = await person.say("Book something on Tuesday or Wednesday at 10")
    assert "What is it for?" in answer.text
    answer = await person.say("yes, a haircut with Ana")
    assert answer.text.startswith(UNSURE)
    assert await person.booked() == []


async def test_a_choice_from_times_that_were_offered_needs_no_question(person: Person) -> None:
    await person.say("What is free for a haircut with Ana on Tuesday oder so?")
    answer = await person.say("the second one")
    assert [tool for tool, _ in answer.calls] == ["book"]


async def test_cancelling_all_but_one_is_asked_about(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    await person.call("book", service="Beard trim", start="2026-11-27T15:00")
    answer = await person.say("Cancel all my appointments except the first of them")
    assert answer.text.startswith(UNSURE)
    assert len(await person.booked()) == 2


async def test_a_move_that_is_not_read_wholly_is_asked_about(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    answer = await person.say("Move my haircut to Thursday at 11, except if Ana is away")
    assert "Shall I move Haircut with Ana on Wednesday 25 November 2026, 10:00 to Thursday 26 November" in answer.text
    assert await person.booked() == [("Haircut", "Ana", "2026-11-25T10:00")]
    await person.say("yes")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-26T11:00")]


async def test_somebody_who_does_not_work_there_is_not_passed_over(person: Person) -> None:
    answer = await person.say("Book a haircut with Zoe on Tuesday at 10")
    assert answer.text.startswith(UNSURE)
    assert "Shall I book Haircut on Tuesday" in answer.text
