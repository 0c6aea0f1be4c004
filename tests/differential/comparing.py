"""What two graphs made of the same conversation, compared.

Meant to differ, and so not compared:
- The tokens of a turn that stopped to ask. Before, those of the agent that asked from a tool were not counted.
- An edit (`aupdate_state`) of the history of an agent that has not answered yet, or not since the person started over:
  before, it was lost. And one while a question waits: it was beside the question then, in a namespace of its own; now
  it moves on the state that waits.
- IDs of checkpoints and interrupts; which of the callers of a merged turn has run it; the words of an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from .conversations import PROCESSES, Step
from .playing import HANDED_ROUND, Played


def differences(steps: Sequence[Step], before: Played, flat: Played) -> Iterator[str]:
    """The differences in words, step by step."""
    for place, (step, one, other) in enumerate(zip(steps, before.steps, flat.steps, strict=True)):
        for what in one:
            yield from _difference(f"step {place}, {what} of {step}", one[what], other[what])
    for place, (one, other) in enumerate(zip_longest(before.shown, flat.shown)):
        yield from _difference(f"what was shown at call {place}", one, other)
    yield from _difference("what was done", before.did, flat.did)
    for place, (one, other) in enumerate(zip_longest(before.transcript, flat.transcript)):
        yield from _difference(f"turn {place + 1} of the transcript", one, other)


HAPPENS = frozenset({
    *("answered", "asked", "asked-again", "resumed", "recovered", "replayed", "merged", "released", "requeued"),
    *("edited", "erased", "away", "died", "handed-over", "handed-over-twice", "handed-round", "booked", "called"),
    *("AgentError", "ModelError", "NothingWaits", "MessageSetAside"),
})  # fmt: skip
"""What happens in the conversations, or they would compare too little."""


ANSWERS = frozenset({("yes",), ("no",), ("3",), ('{"at": "ten"}',), ("null",)})
"""The texts of the turns that an answer to a question began."""


def happened(steps: Sequence[Step], played: Played) -> Iterator[str]:
    """What of `HAPPENS` happened."""
    bookings, calls = played.did
    yield from ["booked"] * len(bookings) + ["called"] * len(calls)
    for texts, record in played.transcript:
        if tuple(texts) in ANSWERS:
            yield "asked-again" if record["interrupt"] else "resumed"
    holder = None
    for step, result in zip(steps, played.steps, strict=True):
        came = result["came"]
        if isinstance(came, list) and came and isinstance(came[0], list):  # it was streamed
            came = came[1]
        answers = [each for each in (came if isinstance(came, list) else [came]) if isinstance(each, dict)]
        yield from (key for each in answers for key in _happened(each))
        numbers = [each["turn_no"] for each in answers]
        if step.kind == "burst" and len(set(numbers)) < len(numbers):
            yield "merged"
        if step.kind == "requeue" and answers:
            yield "requeued"
        if isinstance(came, str):
            yield came
        if step.kind == "erase" and came:
            yield "erased"
        if isinstance(came, list) and came and isinstance(came[0], str):
            yield came[0]
            if came[-1] == HANDED_ROUND:
                yield "handed-round"
        if holder is not None and PROCESSES[step.process] == holder and answers:
            yield "away"
        holder = result["session"][0][0] if result["session"] else None
        if holder is None and answers:
            yield "released"


def _happened(answer: dict[str, Any]) -> Iterator[str]:
    yield "answered"
    if answer["interrupt"]:
        yield "asked"
    if answer["replayed"]:
        yield "replayed"
    if answer["recovered"]:
        yield "recovered"
    if answer["handoffs"]:
        yield "handed-over" if len(answer["handoffs"]) == 1 else "handed-over-twice"


def _difference(what: str, before: Any, flat: Any) -> Iterator[str]:
    one, other = (json.dumps(value, default=str) for value in (before, flat))
    if one != other:
        yield f"{what}:\n  before {one}\n  flat   {other}"
