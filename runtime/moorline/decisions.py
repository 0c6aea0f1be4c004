"""Decisions: what a message is to the question that waited when it came. They are journaled, because a rerun must not
decide otherwise: by then the question may have expired, its agent may be gone, or a model may read the words anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from moorline_agents.history import Closing
from moorline_agents.journal import Journal
from moorline_agents.questions import Given
from moorline_checkpoint.turn import JournalEntry

DECIDED = "(answer)"
"""The name under which they are journaled; no agent can have it."""

TURN_FAILED = "its turn failed before its outcome was known"
"""Why the outcome of what an earlier answer had done is unknown."""


class Decision(NamedTuple):
    """The answer that a message gives to a question, or why it closes it."""

    interrupt_id: str
    given: Given | None = None
    closed: Closing = "not_answered"

    def note(self, journal: Journal) -> None:
        """Has the turn remember it."""
        given = None if self.given is None else self.given.value
        told = {"interrupt_id": self.interrupt_id, "given": given, "closed": self.closed}
        journal.note(DECIDED, {"role": "assistant", "content": json.dumps(told)})


def recalled(journal: Journal) -> Decision | None:
    """What an earlier run of the turn decided; None if there was nothing to decide, or nothing came of it."""
    noted = journal.recall(DECIDED) if journal.recalls(DECIDED) else None
    return None if noted is None else _read(noted["content"])


def made_for(interrupt_id: str, attempts: Iterable[tuple[JournalEntry, ...]]) -> JournalEntry | None:
    """What the call that asked did for an earlier answer, if its turn failed afterwards. `attempts` are the first two
    entries that each of the failed turns has journaled."""
    for attempt in attempts:
        decided, *made = attempt
        if made and decided.name == DECIDED and made[0].kind != "answer":
            decision = _read(decided.intent["content"])
            if decision.interrupt_id == interrupt_id and decision.given is not None:
                return made[0]
    return None


def _read(content: str | None) -> Decision:
    told = json.loads(content or "")
    given = None if told["given"] is None else Given.of(told["given"])
    return Decision(told["interrupt_id"], given, told["closed"])
