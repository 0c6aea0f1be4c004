"""Conversations over several messages: earlier messages complete the last one."""

import pytest

from .conftest import Answer, Person


async def talk(person: Person, *texts: str) -> Answer:
    """The answer to the last of `texts`."""
    answer = await person.say(texts[0])
    for text in texts[1:]:
        answer = await person.say(text)
    return answer


async def test_the_second_message_completes_the_first(person: Person) -> None:
    answer = await talk(person, "I want to book a haircut", "tomorrow at 10 please")
    assert answer.calls == [("book", {"service": "Haircut", "start": "2026-11-23T10:00+01:00"})]
    assert "Booked: Haircut with Ana on Monday 23 November 2026, 10:00" in answer.text
    answer = await person.say("thanks, that's all")
    assert answer.calls == [("end_session", {})]


@pytest.mark.parametrize(
    "texts",
    [
        ("Tomorrow at 10", "a haircut"),
        ("I'd like an appointment", "a haircut please", "at 10", "tomorrow"),
        ("Book a haircut at 10", "Monday works for me"),
        ("Hi there", "can you do a haircut for me?", "Do you have anything tomorrow?", "10 o'clock is fine"),
        ("What do you offer?", "A haircut", "Monday morning", "the third one"),
        ("Book a haircut", "as for the day, tomorrow", "10:00"),
        ("Is 10:00 free tomorrow for a haircut?", "yes please"),
        ("Is 10:00 free tomorrow for a haircut?", "Great, book it"),
        ("Book a haircut tomorrow at 12:15", "no, make it 10"),
        ("I need a beard trim", "sorry, I mean a haircut", "tomorrow at ten"),
        ("When can I come for a haircut?", "What about Tuesday?", "no, rather tomorrow at 10"),
        ("haircut", "what services are there again?", "tomorrow at 10"),
    ],
    ids="|".join,
)
async def test_a_booking_put_together_from_messages(person: Person, texts: tuple[str, ...]) -> None:
    await talk(person, *texts)
    assert await person.booked() == [("Haircut", "Ana", "2026-11-23T10:00")]


async def test_messages_not_answered_in_between_are_read_as_one(person: Person) -> None:
    answer = await person.say("I want to book a haircut", "tomorrow at 10 please")
    assert [tool for tool, _ in answer.calls] == ["find_slots", "book"]


async def test_a_time_just_taken_by_another_is_answered_with_alternatives(person: Person) -> None:
    await person.call("book", service="Colouring", start="2026-11-23T10:00")
    answer = await talk(person, "I want to book a haircut with Ana", "tomorrow at 10 please")
    assert "is taken. Nothing was booked." in answer.text
    assert "Monday 23 November 2026, 11:30 with Ana" in answer.text
    assert "+01:00" not in answer.text
    answer = await person.say("then the first one")
    assert answer.calls == [
        ("book", {"service": "Haircut", "start": "2026-11-23T11:30+01:00", "provider": "Ana"}),
    ]
    assert answer.text.startswith("Booked: ")


async def test_a_refused_time_is_not_asked_for_again(person: Person) -> None:
    answer = await talk(person, "Book a haircut with Ana on Sunday at 10", "Then on Monday")
    assert answer.calls == [("find_slots", {"service": "Haircut", "provider": "Ana", "day": "2026-11-23"})]


async def test_a_provider_who_does_not_do_it_is_answered_with_those_who_do(person: Person) -> None:
    answer = await talk(person, "Book a haircut with Dr. Weber tomorrow at 10")
    assert answer.text == "I am sorry. Nobody called 'Dr. Weber' offers Haircut. Would Ana or Marc suit you?"
    await talk(person, "with Ana then, tomorrow at 10")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-23T10:00")]


async def test_booked_moved_and_cancelled(person: Person) -> None:
    await talk(person, "Book a haircut with Ana tomorrow at 10", "Move it to 11")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-23T11:00")]
    answer = await talk(person, "Could I move it to Thursday afternoon?", "the second one")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-26T13:30")]
    assert answer.text.startswith("Moved: ")
    answer = await person.say("please cancel it")
    assert await person.booked() == []
    assert answer.text.startswith("Cancelled: ")


async def test_it_means_the_last_one_booked(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    await talk(person, "Book a beard trim on Friday at 15:00", "cancel it")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-25T10:00")]


@pytest.mark.parametrize(
    "choice", ["the second one", "the beard trim", "the one on Friday", "the one at 3pm", "the last one"]
)
async def test_one_of_several_is_asked_for_and_chosen(person: Person, choice: str) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    await person.call("book", service="Beard trim", start="2026-11-27T15:00")
    answer = await person.say("Please cancel my appointment")
    assert answer.text.startswith("Which one do you mean?")
    answer = await person.say(choice)
    assert answer.calls[-1][0] == "cancel"
    assert await person.booked() == [("Haircut", "Ana", "2026-11-25T10:00")]


async def test_an_appointment_is_chosen_by_its_reference(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    booked = await person.call("book", service="Beard trim", start="2026-11-27T15:00")
    await person.say(f"Cancel {booked['appointment']['reference']}")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-25T10:00")]


async def test_one_of_several_is_moved_once_it_is_clear_which(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    await person.call("book", service="Beard trim", start="2026-11-27T15:00")
    await talk(person, "Move my appointment to Thursday at 11", "the haircut")
    assert await person.booked() == [
        ("Haircut", "Ana", "2026-11-26T11:00"),
        ("Beard trim", "Marc", "2026-11-27T15:00"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Cancel my dental check-up",
        "Yes, cancel my dental check-up",
        "Cancel the appointment on Monday",
        "Cancel 0badc0de",
    ],
)
async def test_another_appointment_than_the_one_meant_is_never_cancelled(person: Person, text: str) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    answer = await person.say(text)
    assert [tool for tool, _ in answer.calls] == ["list_appointments"]
    assert "Shall I cancel that one?" in answer.text
    await person.say("yes please")
    assert await person.booked() == []


async def test_no_leaves_an_appointment_as_it_is(person: Person) -> None:
    await person.call("book", service="Haircut", start="2026-11-25T10:00")
    await talk(person, "Cancel my dental check-up", "no")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-25T10:00")]


async def test_never_mind_forgets_what_was_wanted(person: Person) -> None:
    answer = await talk(person, "Book a haircut", "never mind", "tomorrow at 10")
    assert await person.booked() == []
    assert "What is it for?" in answer.text


async def test_what_was_wanted_is_forgotten_once_the_session_ended(person: Person) -> None:
    answer = await talk(person, "Book a haircut", "bye", "tomorrow at 10")
    assert await person.booked() == []
    assert "What is it for?" in answer.text


async def test_a_question_in_between_does_not_lose_what_was_wanted(person: Person) -> None:
    await talk(person, "Book a haircut", "Do I have any appointments already?", "tomorrow at 10")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-23T10:00")]


@pytest.mark.parametrize("aside", ["By the way, tell me a joke", "What's the weather on Friday?"])
async def test_off_topic_in_the_middle_is_handed_over_and_the_wish_kept(person: Person, aside: str) -> None:
    answer = await talk(person, "I need an appointment tomorrow", aside)
    assert answer.calls[0][0] == "hand_over"
    await person.say("a haircut at 10")
    assert await person.booked() == [("Haircut", "Ana", "2026-11-23T10:00")]


async def test_a_message_that_answers_nothing_is_asked_again(person: Person) -> None:
    answer = await talk(person, "I want to make an appointment", "hmm let me think")
    assert "What is it for?" in answer.text
    assert not answer.calls
