"""What an agent keeps: it depends on what was said, not on how the updates were grouped."""

from __future__ import annotations

from itertools import cycle, pairwise
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moorline_agents.history import HISTORY_MESSAGES, being_answered, closing, extend_history, last_texts, open_calls
from moorline_agents.messages import Message

Role = Literal["user", "assistant", "tool"]
Roles = tuple[Role, ...]

ALONE: Roles = ("user",)
CALL: Roles = ("assistant", "tool")
TALK: Roles = ("user", "assistant")
BOOKING: Roles = ("user", "assistant", "tool", "assistant")
BUSY: Roles = ("user", "assistant", "tool", "assistant", "tool", "assistant", "tool", "assistant")


def answer(*ids: str) -> Message:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids],
    }


def result(own_id: str) -> Message:
    return {"role": "tool", "tool_call_id": own_id, "content": "{}"}


def numbered(updates: list[Roles]) -> list[tuple[Message, ...]]:
    """Updates with numbered messages in these roles, each result with the call before it."""
    number = iter(range(sum(map(len, updates))))
    return [tuple(_message(str(next(number)), *roles) for roles in pairwise((*update, "end"))) for update in updates]


def _message(number: str, role: str, following: str) -> Message:
    match role:
        case "tool":
            return {**result(str(int(number) - 1)), "content": number}
        case "assistant":
            said: Message = answer(number) if following == "tool" else {"role": "assistant", "content": None}
            return {**said, "content": number}
        case _:
            return {"role": "user", "content": number}


def flat(updates: list[tuple[Message, ...]]) -> list[Message]:
    return [message for update in updates for message in update]


updates = st.sampled_from([TALK, BOOKING, BUSY, ALONE, CALL, ("assistant",)])
histories = st.lists(st.tuples(updates, st.integers(1, 90)), max_size=6).map(
    lambda runs: [update for update, times in runs for _ in range(times)]
)
"""Runs of one kind of update, so that either of the two bounds may be met first."""


@settings(max_examples=300, deadline=None)
@given(said=histories.map(numbered), sizes=st.lists(st.integers(1, 90), min_size=1, max_size=20))
@example(said=numbered([BUSY, *[ALONE] * 40, *[CALL] * 38]), sizes=[1])
@example(said=numbered([*[TALK] * 60, *[ALONE] * 3, *[CALL] * 90, ALONE, *[CALL] * 90]), sizes=[7])
def test_updates_a_step_at_a_time_make_the_same_history_as_all_at_once(
    said: list[tuple[Message, ...]], sizes: list[int]
) -> None:
    history: list[Message] = []
    left = said
    for size in cycle(sizes):
        if not left:
            break
        history, left = extend_history(history, left[:size]), left[size:]
    assert history == extend_history([], said)


@settings(max_examples=300, deadline=None)
@given(said=histories.map(numbered))
@example(said=numbered([*[TALK] * 60, *[ALONE] * 3, *[CALL] * 90]))
def test_so_much_is_kept_and_always_the_message_that_is_being_answered(said: list[tuple[Message, ...]]) -> None:
    every, kept = flat(said), extend_history([], said)
    assert kept == every[len(every) - len(kept) :]
    asked = len(every) - being_answered(every)
    assert len(kept) == min(len(every), max(HISTORY_MESSAGES, asked))


def test_the_message_being_answered_is_all_that_was_said_in_a_row() -> None:
    said = flat(numbered([TALK, ALONE, ALONE, CALL, CALL]))
    assert being_answered(said) == 2
    assert last_texts(said) == ["2", "3"]
    assert being_answered(flat(numbered([CALL]))) == 2
    assert being_answered([]) == 0


@pytest.mark.parametrize(
    ("history", "left"),
    [
        ([], []),
        ([{"role": "user", "content": "x"}], []),
        ([answer("a", "b")], ["a", "b"]),
        ([answer("a", "b"), result("a")], ["b"]),
        ([answer("a", "b"), result("b"), result("a")], []),
        ([answer("a"), {"role": "user", "content": "x"}], []),
        ([answer("a"), result("a"), answer("a")], ["a"]),
        ([{"role": "assistant", "content": "x"}], []),
        ([result("a")], []),
    ],
)
def test_open_calls_are_those_of_the_last_answer_that_have_no_result(history: list[Message], left: list[str]) -> None:
    assert [call["id"] for call in open_calls(history)] == left
    whole = [*history, *closing(open_calls(history))]
    assert open_calls(whole) == []
    assert all(
        "not done; the person said something else instead of answering" in str(each["content"])
        for each in whole[len(history) :]
    )
