"""What a turn that failed has done: told to the agent that did it, until the turn is finished."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 500
"""Characters of a call's arguments, and of its result."""

_TOLD = """\
An earlier message of this person failed before it could be answered, but these calls of your tools were made for it:
{calls}
What they did stands, though it is not part of the conversation that you see. Do not make them again for the same thing,
and never say that it was not done: if the person asks about it, or for it once more, tell them what was done."""
_OPEN = "outcome unknown: it may have been done; let the person check"


@dataclass(frozen=True, kw_only=True)
class UnfinishedCall:
    """A call of a tool that had an effect, for a message that has not been answered."""

    agent: str | None
    """The agent whose tool it is; None where that is not known."""
    tool: str
    arguments: str
    """As the model wrote them."""
    result: Any
    """`{"value": …}` with what the call gave, `{"refused": …}` where it did nothing, None where nobody knows."""


def unfinished_note(calls: Sequence[UnfinishedCall], *, names: Collection[str], tools: Collection[str]) -> str:
    """What a model is told of the calls of its own agent, which has, or had, these names; empty if there are none."""
    own = [
        call
        for call in calls
        if call.agent in names or (call.agent is None and call.tool in tools)
        if not (isinstance(call.result, dict) and "refused" in call.result)
    ]
    return _TOLD.format(calls="\n".join(map(_line, own))) if own else ""


def _line(call: UnfinishedCall) -> str:
    result = _OPEN if call.result is None else f"result: {_short(json.dumps(call.result['value'], ensure_ascii=False))}"
    return f"- {call.tool} {_short(call.arguments)}; {result}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
