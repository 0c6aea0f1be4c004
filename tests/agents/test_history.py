"""What an agent remembers: a window that depends on what was said, not on how the updates were grouped."""

from __future__ import annotations

from itertools import cycle
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moorline_agents.history import HISTORY_MESSAGES, HISTORY_USER_MESSAGES, extend_history, shown
from moorline_agents.messages import Message

Role = Literal["user", "assistant", "tool"]
Roles = tuple[Role, ...]

ALONE: Roles = ("user",)
CALL: Roles = ("assistant", "tool")
TALK: Roles = ("user", "assistant")
BOOKING: Roles = ("user", "assistant", "tool", "assistant")
BUSY: Roles = ("user", "assistant", "tool", "assistant", "tool", "assistant", "tool", "assistant")


def numbered(updates: list[Roles]) -> list[tuple[Message, ...]]:
    """Updates with numbered messages in these roles."""
    number = iter(range(sum(map(len, updates))))
    return [tuple({"role": role, "content": str(next(number))} for role in update) for update in updates]


def flat(updates: list[tuple[Message, ...]]) -> list[Message]:
    return [message for update in updates for message in update]


@pytest.mark.parametrize(
    ("roles", "length"),
    [(TALK, 2 * HISTORY_USER_MESSAGES), (BOOKING, HISTORY_MESSAGES), (BUSY, HISTORY_MESSAGES)],
    ids=["talk", "booking", "busy"],
)
def test_a_model_is_shown_so_much(roles: Roles, length: int) -> None:
    updates = numbered([roles] * 100)
    assert shown(extend_history([], updates)) == flat(updates)[-length:]
    assert shown(extend_history([], updates[:5])) == flat(updates[:5])


updates = st.sampled_from([TALK, BOOKING, BUSY, ALONE, CALL, ("assistant",)])
histories = st.lists(st.tuples(updates, st.integers(1, 90)), max_size=6).map(
    lambda runs: [update for update, times in runs for _ in range(times)]
)
"""Runs of one kind of update, so that either of the two bounds may be met first."""


@settings(max_examples=300, deadline=None)
@given(said=histories.map(numbered), sizes=st.lists(st.integers(1, 90), min_size=1, max_size=20))
@example(said=numbered([BUSY, *[ALONE] * 40, *[CALL] * 38]), sizes=[1])
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
def test_a_model_is_shown_the_end_of_what_was_said_within_both_bounds_and_no_orphaned_result(
    said: list[tuple[Message, ...]],
) -> None:
    window = shown(extend_history([], said))
    roles = [message["role"] for message in window]
    assert window == flat(said)[len(flat(said)) - len(window) :]
    assert len(window) <= HISTORY_MESSAGES
    assert roles.count("user") <= HISTORY_USER_MESSAGES
    assert roles[:1] in ([], ["user"])
    # Nothing is held back that fits: one more message of the person would be too many, or is not kept.
    before = extend_history([], said)[: -len(window) or None]
    assert roles.count("user") == HISTORY_USER_MESSAGES or all(message["role"] != "user" for message in before)
