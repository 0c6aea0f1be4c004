"""The conversation as all agents had it: the port through which the router, and agents that see it, read its last
turns. A runtime brings one that reads committed turns, so a rerun is given the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTurn:
    """What was said in one turn."""

    texts: Sequence[str]
    """The person's, or the answer of whoever gave it instead (`by`)."""
    agent: str | None
    """Who answered; None if no agent did."""
    reply: str
    by: str | None = None


class Conversation(Protocol):
    """The turns of a device before the one that runs."""

    async def last(self, turns: int) -> Sequence[PastTurn]:
        """At most so many of the last turns, oldest first; none from before the person last started over."""


class NoConversation:
    """For graphs that run outside a turn."""

    async def last(self, turns: int) -> Sequence[PastTurn]:  # noqa: ARG002 - there are none
        return ()
