"""The control tools of the kit, with which an agent or the router decides about the session."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any, NamedTuple

from moorline_agents.answer_schema import ANSWER
from moorline_agents.json_limits import parsed
from moorline_agents.messages import Message
from moorline_agents.tools import ToolRefused
from moorline_agents.window import clipped

HAND_OVER = "hand_over"
END_SESSION = "end_session"
ROUTE = "route"
NAMES = (HAND_OVER, END_SESSION, ROUTE, ANSWER)
HANDED_OVER = "handed_over_to"
"""In the result of a hand-over: the agent's name."""

LONGEST_REASON = 500
LONGEST_NOTE = 4_000
"""Characters that the next agent is told of a hand-over's reason, and of its note."""

_AGENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")


def check_name(name: str) -> None:
    """Raises `ValueError` for a name that the lock could not hold, that a LangGraph namespace would split, or that is
    LangGraph's own."""
    if not _AGENT_NAME.fullmatch(name) or name == ROUTE or name.startswith("__"):
        raise ValueError(
            f"{name!r} cannot name an agent: use 1 to 50 letters, digits, underscores or hyphens, not {ROUTE!r}, and "
            "no two underscores at the beginning."
        )


def check_ttl(name: str, ttl: int | None) -> None:
    """Raises `ValueError` unless a lock can live for so many seconds; None leaves it to others."""
    if ttl is not None and (not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 < ttl < 2**31):
        raise ValueError(f"Agent {name}: session_ttl must be a positive number of whole seconds below 2,147,483,648.")


def _schema(
    name: str, description: str, properties: dict[str, Any], *, optional: Collection[str] = ()
) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [each for each in properties if each not in optional],
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def _agent_property(agents: Mapping[str, str]) -> dict[str, Any]:
    told = "; ".join(f"{name}: {description}" for name, description in agents.items())
    return {"type": "string", "enum": list(agents), "description": told}


def hand_over_schema(agents: Mapping[str, str]) -> dict[str, Any]:
    """The tool with which an agent hands the person's message over to one of `agents` (name to description)."""
    return _schema(
        HAND_OVER,
        "Hand the conversation over to another agent, which then answers the person's last message. "
        "Use it when what they ask for is another agent's job; do not announce it.",
        {
            "agent": _agent_property(agents),
            "reason": {"type": "string", "description": "In a few words."},
            "note": {"type": "string", "description": "What the other agent should know, if anything."},
        },
        optional=("note",),
    )


END_SESSION_SCHEMA = _schema(
    END_SESSION, "Call this when the person is done with what you are here for, then say goodbye.", {}
)


def route_schema(agents: Mapping[str, str]) -> dict[str, Any]:
    """The one tool of a routing request."""
    return _schema(ROUTE, "Pick the agent that should answer.", {"agent": _agent_property(agents)})


def hand_over_target(target: str, agents: Collection[str], *, own_names: Collection[str]) -> str:
    """The agent that a `hand_over` call names. Raises `ToolRefused` if it is none of `agents`, or the calling agent
    itself."""
    if target in own_names and target not in agents:
        raise ToolRefused(f"You are {target}: the conversation is yours already. Answer the person.", code="yourself")
    if target not in agents:
        known = ", ".join(sorted(agents)) or "none"
        raise ToolRefused(
            f"There is no agent {target[:100]!r} to hand over to. The agents are: {known}.", code="unknown_agent"
        )
    return target


class HandOver(NamedTuple):
    """A hand-over that a model decided."""

    to: str
    reason: str
    note: str


def hand_over(to: str, *, reason: str, note: str) -> HandOver:
    """The hand-over, with as much as the next agent is told of what the model says about it."""
    return HandOver(to, reason=clipped(reason, LONGEST_REASON), note=clipped(note, LONGEST_NOTE))


def handed_over(history: Sequence[Message]) -> HandOver | None:
    """To whom the calls of the last answer handed over. The results that follow it tell: a call may have been made in
    an earlier turn than the last one."""
    results = {each["tool_call_id"]: each for each in takewhile(lambda each: each["role"] == "tool", reversed(history))}
    for call in history[-1 - len(results)].get("tool_calls", ()):
        if call["function"]["name"] == HAND_OVER and call["id"] in results:
            target = json.loads(results[call["id"]]["content"] or "{}").get(HANDED_OVER)
            if target is not None:
                arguments = call["function"]["arguments"]
                return hand_over(str(target), reason=_text_in(arguments, "reason"), note=_text_in(arguments, "note"))
    return None


def session_ended(history: Sequence[Message]) -> bool:
    """Whether the agent has ended the session since the person last spoke."""
    since = takewhile(lambda message: message["role"] != "user", reversed(history))
    calls = chain.from_iterable(message.get("tool_calls", ()) for message in since)
    return any(call["function"]["name"] == END_SESSION and "refused" not in call for call in calls)


def named_agent(arguments: str) -> str:
    """The `agent` in a call's JSON arguments, or "" if there is none."""
    return _text_in(arguments, "agent")


def _text_in(arguments: str, name: str) -> str:
    try:
        value = parsed(arguments)
    except ValueError:
        return ""
    text = value.get(name) if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
