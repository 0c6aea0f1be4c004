"""The effects of failed turns: each agent's model is told of its own, until the turn is finished."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from moorline_agents.tools import ToolRefused

LONGEST = 500
"""Characters that are shown of a call's arguments, and of its result."""

_TOLD = """\
An earlier message of this person failed before it could be answered, but these calls of your tools were made for it:
{calls}
What they did stands, though the conversation that you see does not show it. Do not make them again for the same thing,
and never say that it was not done: if the person asks about it, or asks for it again, tell them what was done."""
_UNKNOWN = frozenset({"outcome_unknown", "mcp_lost"})
"""Codes of refusals of which nobody knows whether the call had its effect all the same."""
_OPEN = "outcome unknown: it may have been done; let the person check"


@dataclass(frozen=True, kw_only=True)
class UnfinishedCall:
    """A tool call that had an effect, for a message that has not been answered."""

    agent: str | None
    """The agent whose tool it is; None if that is not known."""
    tool: str
    arguments: str
    """As the model wrote them."""
    result: Any
    """`{"value": …}` with the call's result, `{"refused": …}` if it did nothing, or if its code says
    that the outcome is unknown, `{"asked": true}` if it only asked, None if the outcome is unknown."""


def did_nothing(result: Any) -> bool:
    """Whether a call with this result certainly had no effect."""
    return result is not None and "refused" in result and result["refused"].get("code") not in _UNKNOWN


def unknown_outcome(tool: str, why: str, *, idempotent: bool) -> dict[str, Any]:
    """What is told of a call of which nobody knows whether it had its effect; `why` goes on after "but"."""
    again = (
        "It can be called again with the same arguments"
        if idempotent
        else "Do not call it again for the same thing: tell the person, and let them check"
    )
    refusal = ToolRefused(f"{tool} was called, but {why}. It may have happened. {again}.", code="outcome_unknown")
    return refusal.shown()


def unfinished_note(calls: Sequence[UnfinishedCall], *, names: Collection[str], tools: Collection[str]) -> str:
    """The note for an agent's model about the agent's own calls, under any of its `names`; empty if there are none."""
    own = [
        call
        for call in calls
        if call.agent in names or (call.agent is None and call.tool in tools)
        if not did_nothing(call.result)
    ]
    return _TOLD.format(calls="\n".join(map(_line, own))) if own else ""


def _line(call: UnfinishedCall) -> str:
    return f"- {call.tool} {_short(call.arguments)}; {_outcome(call.result)}"


def _outcome(result: Any) -> str:
    if result is None or "refused" in result:
        return _OPEN
    if "value" in result:
        return f"result: {_short(json.dumps(result['value'], ensure_ascii=False))}"
    return "it stopped to ask the person, and was not finished"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
