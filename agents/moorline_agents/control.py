"""The control tools of the kit, with which an agent or the router decides about the session."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from typing import Any

from moorline_agents.tools import ToolRefused

HAND_OVER = "hand_over"
END_SESSION = "end_session"
ROUTE = "route"
NAMES = (HAND_OVER, END_SESSION, ROUTE)

_AGENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")


def check_name(name: str) -> None:
    """Raises `ValueError` for a name that the lock could not hold or that a LangGraph namespace would split."""
    if not _AGENT_NAME.fullmatch(name) or name == ROUTE:
        raise ValueError(
            f"{name!r} cannot name an agent: use 1 to 50 letters, digits, underscores or hyphens, and not {ROUTE!r}."
        )


def _schema(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
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
        {"agent": _agent_property(agents), "reason": {"type": "string", "description": "In a few words."}},
    )


END_SESSION_SCHEMA = _schema(
    END_SESSION, "Call this when the person is done with what you are here for, then say goodbye.", {}
)


def route_schema(agents: Mapping[str, str]) -> dict[str, Any]:
    """The one tool of a routing request."""
    return _schema(ROUTE, "Pick the agent that should answer.", {"agent": _agent_property(agents)})


def hand_over_target(arguments: str, agents: Set[str]) -> str:
    """The agent that the arguments of a `hand_over` call name. Raises `ToolRefused` if it is none of `agents`."""
    target = named_agent(arguments)
    if target not in agents:
        raise ToolRefused(
            f"There is no agent {target!r} to hand over to. The agents are: {', '.join(sorted(agents))}.",
            code="unknown_agent",
        )
    return target


def named_agent(arguments: str) -> str:
    """The `agent` in a call's JSON arguments, or "" if there is none."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return ""
    agent = value.get("agent") if isinstance(value, dict) else None
    return agent if isinstance(agent, str) else ""
