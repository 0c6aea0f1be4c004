"""What a model is shown of a history: as much of its end as fits, in a form that every server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorline.testing import ModelReply, ModelRequest
from moorline_agents.history import HISTORY_MESSAGES, NOT_ANSWERED, being_answered, extend_history
from moorline_agents.messages import Message, ToolCall
from moorline_agents.tokens import tokens_of
from moorline_agents.window import LEAST_MESSAGES, MOST_MESSAGES, SHORTEST, Window, clipped, outgrown, paired, window
from tests.strict_model import OPENAI, StrictModel

from .test_history import BOOKING, BUSY, TALK, Roles, answer, flat, histories, numbered, result


def asks(text: str = "x") -> Message:
    return {"role": "user", "content": text}


def gives(own_id: str, text: str) -> Message:
    """The result of a call."""
    return {"role": "tool", "tool_call_id": own_id, "content": text}


def says(text: str = "x") -> Message:
    return {"role": "assistant", "content": text}


async def taken(messages: Sequence[Message]) -> bool:
    """Whether the strictest of servers takes them, in whatever number."""
    model = StrictModel(rules=lambda _: ModelReply(text="yes"), server=OPENAI, limit=10**9)
    await model(ModelRequest(model="m", messages=tuple(messages)))
    return not model.refused


@pytest.mark.parametrize("roles", [TALK, BOOKING, BUSY], ids=["talk", "booking", "busy"])
def test_a_model_is_shown_all_that_is_kept(roles: Roles) -> None:
    updates = flat(numbered([roles] * 130))
    assert shown(updates) == updates[-HISTORY_MESSAGES:]
    assert shown(updates[: 5 * len(roles)]) == updates[: 5 * len(roles)]


def shown(history: list[Message], room: int = 10**9) -> list[Message]:
    kept = extend_history([], [tuple(history)])
    return list(window(kept, room).messages)


@settings(max_examples=300, deadline=None)
@given(said=histories.map(numbered))
def test_it_is_the_end_of_what_was_said_and_begins_with_the_person(said: list[tuple[Message, ...]]) -> None:
    every = flat(said)
    kept, seen = extend_history([], said), shown(every)
    roles = [message["role"] for message in seen]
    assert seen == every[len(every) - len(seen) :]
    assert roles[:1] in ([], ["user"])
    assert all(message["role"] != "user" for message in kept[: len(kept) - len(seen)]), "nothing is held back"


# A history that is broken in every way in which one can be.
ids = st.sampled_from(["a", "b", "c"])
broken = st.lists(
    st.one_of(
        st.integers(0, 900).map(lambda size: asks("u" * size + "?")),
        st.integers(0, 900).map(lambda size: says("s" * size + ".")),
        st.lists(ids, min_size=1, max_size=3, unique=True).map(lambda some: answer(*some)),
        st.tuples(ids, st.integers(2, 900)).map(lambda made: gives(made[0], "r" * made[1])),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(
    history=broken, last=st.integers(0, 4000), room=st.integers(1, 2000), kept=st.lists(st.integers(0, 900), max_size=9)
)
async def test_whatever_a_history_is_like_a_strict_server_takes_what_is_shown_of_it(
    history: list[Message], last: int, room: int, kept: list[int]
) -> None:
    asked = asks("now " + "n" * last)
    rounds = flat([(answer("x", "y"), gives("x", "r" * size), result("y")) for size in kept])
    whole = window([*history, asked, *rounds], room)
    mine, seen = whole.source, cast("Window | None", whole)
    bounds = []
    while seen is not None:
        bounds.append(seen.size)
        assert await taken(seen.messages)
        texts = [str(message["content"]) for message in seen.messages if message["role"] == "user"]
        assert texts[-1].startswith("now")
        if rounds:
            assert seen.messages[-1] == rounds[-1]
            assert seen.messages[-3:-2] == [rounds[-3]] or seen.size < 300, "the last answer is whole if it can be"
        seen = seen.shorter(None)
    assert bounds == sorted(set(bounds), reverse=True)
    asking = len(mine) - being_answered(mine) - len(paired(rounds))
    least = (asking + 3 * bool(rounds)) * 140  # a message that cannot be any shorter
    assert bounds[0] <= max(room, least)


def test_results_stand_right_behind_their_calls() -> None:
    history = [asks(), answer("a", "b"), result("b"), asks(), result("a"), says()]
    assert paired(history) == [asks(), answer("a", "b"), result("a"), result("b"), asks(), says()]


def test_an_open_call_is_closed_and_a_stray_result_dropped() -> None:
    whole = paired([asks(), answer("a", "b"), result("b"), asks("instead"), result("z")])
    assert [message["role"] for message in whole] == ["user", "assistant", "tool", "tool", "user"]
    assert json.loads(str(whole[2]["content"]))["error"] == NOT_ANSWERED
    assert whole[2]["tool_call_id"] == "a"


def test_an_id_that_a_server_uses_again_means_the_later_call() -> None:
    first, second = gives("a", "1"), gives("a", "2")
    history = [asks(), answer("a"), first, answer("a"), second, says()]
    assert paired(history) == history
    unsettled = paired([asks(), answer("a"), answer("a"), second])
    assert [str(message["content"])[:2] for message in unsettled if message["role"] == "tool"] == ['{"', "2"]


def test_a_window_that_has_no_room_for_a_history_leaves_half_of_the_room_free() -> None:
    history = [message for number in range(20) for message in (asks(f"{number:04}" * 10), says("y" * 10))]
    size = tokens_of(history)
    assert window(history, size) == Window(messages=history, size=size, source=history)
    cut = window(history, size - 1)
    assert cut.messages == history[len(history) - len(cut.messages) :]
    assert cut.size <= size // 2 < cut.size + tokens_of(history[:2])


def test_half_of_its_room_is_left_to_what_was_said_before_a_long_message() -> None:
    history = [asks("a" * 100), says("b" * 100), asks("c" * 900)]
    size = tokens_of(history)
    assert window(history, size - 1).messages == history[2:]
    assert window(history, size).messages == history


@settings(max_examples=300, deadline=None)
@given(said=histories.map(numbered), room=st.integers(1, 4000), most=st.none() | st.integers(1, 1000))
def test_a_history_is_cut_between_two_messages_of_the_person_and_then_not_again(
    said: list[tuple[Message, ...]], room: int, most: int | None
) -> None:
    history = flat(said)
    cut = outgrown(history, room, most=most)
    if cut is None:
        return
    if len(cut.fallen) == len(history):  # what is left has been shortened, or nothing is
        assert tokens_of(cut.kept) < tokens_of(history)
    else:
        assert [*cut.fallen, *cut.kept] == history
    assert [message["role"] for message in cut.kept[:1]] in ([], ["user"])
    once_more = outgrown(cut.kept, room)
    assert once_more is None or len(once_more.kept) < len(cut.kept)


def test_a_history_that_has_outgrown_its_bounds_is_cut_to_half_of_them() -> None:
    talk = flat(numbered([TALK] * (MOST_MESSAGES // 2 - 1)))
    assert outgrown(talk, 10**6) is None
    cut = outgrown([*talk, *flat(numbered([TALK]))], 10**6)
    assert cut is not None
    assert len(cut.kept) == LEAST_MESSAGES
    size = tokens_of(talk)
    assert outgrown(talk, size * 4 // 3 + 1) is None
    cut = outgrown(talk, size * 4 // 3 - 10)
    assert cut is not None
    assert size * 0.4 < tokens_of(cut.kept) <= size / 2


def test_an_exchange_that_is_too_long_by_itself_is_kept_without_its_middle() -> None:
    cut = outgrown([asks("hello"), says(), asks("a" * 9000 + "z"), says("b" * 9000)], 1000)
    assert cut is not None
    assert [message["role"] for message in cut.kept] == ["user", "assistant"]
    assert tokens_of(cut.kept) <= 1000 * 3 / 8
    assert outgrown(cut.kept, 1000) is None
    assert cut.fallen[2] == asks("a" * 9000 + "z"), "the summary is made of all of it"


def test_what_is_too_large_by_itself_is_shown_without_its_middle() -> None:
    long = window([asks("a" * 5000 + "z" * 5000), answer("x"), gives("x", "r" * 30)], 1000)
    text = str(long.messages[0]["content"])
    assert text.startswith("aaa")
    assert text.endswith("zzz")
    assert "characters left out" in text
    assert long.messages[2]["content"] == "r" * 30
    assert long.messages is not long.source
    assert long.size <= 1000


def test_arguments_that_are_left_out_are_json_all_the_same() -> None:
    call: Any = answer("x")
    call["tool_calls"][0]["function"]["arguments"] = json.dumps({"text": "y" * 9000})
    seen = window([asks(), call, result("x")], 250).messages
    arguments = seen[1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"left_out": "9,012 characters"}


def test_of_too_many_calls_the_oldest_are_left_out_and_the_last_never() -> None:
    calls = [message for number in range(50) for message in (answer(f"c{number}"), gives(f"c{number}", "r" * 200))]
    seen = window([says(), asks("now"), *calls], 1000)
    assert seen.messages[0] == asks("now")
    assert list(seen.messages[1:]) == calls[-(len(seen.messages) - 1) :]
    assert seen.size <= 1000 < seen.size + tokens_of(calls[:2])
    least = gives("c49", clipped("r" * 200, SHORTEST // 8))
    assert window([asks("now"), *calls], 10).messages == [asks("now"), calls[-2], least]


@pytest.mark.parametrize("letter", ["x", "漢", "😀"])
@pytest.mark.parametrize("room", [600, 2_000])
def test_whatever_is_too_large_by_itself_has_room_in_the_end(letter: str, room: int) -> None:
    long = letter * 5_000
    burst: list[Message] = [{"role": "user", "content": long} for _ in range(32)]
    calls: list[ToolCall] = [
        {"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": long})}}
        for n in range(64)
    ]
    results = [gives(each["id"], long) for each in calls]
    at_once: list[Message] = [*burst[:2], {"role": "assistant", "content": long, "tool_calls": calls}, *results]
    briefed: Message = {"role": "user", "content": long, "briefing": letter * 1_000_000}
    for said in (burst, at_once, [briefed]):
        history: list[Message] = [{"briefing": "It is noon.", **said[0]}, *said[1:]]
        shown = window(history, room)
        assert shown.size == tokens_of(shown.messages) <= room
        assert list(paired(shown.messages)) == list(shown.messages)
        assert shown.messages[0]["briefing"]
        assert shown.messages[-1] == history[-1] or len(str(shown.messages[-1]["content"])) < 5_000
        cut = outgrown([*history, {"role": "assistant", "content": "done"}], room)
        assert cut is not None
        assert tokens_of(cut.kept) <= room


def test_clipping() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("a" * 60 + "z" * 60, 30) == "a" * 20 + " [… 90 characters left out …] " + "z" * 10
