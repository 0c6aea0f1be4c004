"""What an agent remembers: a window that depends on what was said, not on how it came in."""

from __future__ import annotations

from random import Random
from typing import Literal

import pytest

from moorline_agents.agent import HISTORY_MESSAGES, HISTORY_USER_MESSAGES, extend_history
from moorline_agents.messages import Message

Roles = tuple[Literal["user", "assistant", "tool"], ...]

TALK: Roles = ("user", "assistant")
BOOKING: Roles = ("user", "assistant", "tool", "assistant")
BUSY: Roles = ("user", "assistant", "tool", "assistant", "tool", "assistant", "tool", "assistant")


def said(turns: int, roles: Roles) -> list[tuple[Message, ...]]:
    """The updates of so many turns, one for each turn, the messages numbered."""
    numbers = range(turns * len(roles))
    messages: list[Message] = [{"role": roles[n % len(roles)], "content": str(n)} for n in numbers]
    return [tuple(messages[n : n + len(roles)]) for n in numbers[:: len(roles)]]


@pytest.mark.parametrize(
    ("roles", "kept"),
    [(TALK, 2 * HISTORY_USER_MESSAGES), (BOOKING, HISTORY_MESSAGES), (BUSY, HISTORY_MESSAGES)],
    ids=["talk", "booking", "busy"],
)
def test_a_history_goes_back_so_far(roles: Roles, kept: int) -> None:
    updates = said(100, roles)
    everything = [message for update in updates for message in update]
    assert extend_history([], updates) == everything[-kept:]
    assert extend_history([], updates[:5]) == everything[: 5 * len(roles)]


@pytest.mark.parametrize("seed", range(20))
def test_updates_one_by_one_make_the_same_history_as_all_at_once(seed: int) -> None:
    chance = Random(seed)  # noqa: S311
    updates = [update for _ in range(60) for update in said(1, chance.choice([TALK, BOOKING, BUSY, ("user",)]))]
    at_once = extend_history([], updates)
    history: list[Message] = []
    while updates:
        size = chance.randint(1, 4)
        history = extend_history(history, updates[:size])
        updates = updates[size:]
    assert history == at_once
