"""The agents that a request lets the model choose from, and the control tools that name them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from moorline_agents.rehearsal.intents import about_appointments
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moorline_agents.rehearsal.intents import Said

HAND_OVER = "hand_over"
END_SESSION = "end_session"
ROUTE = "route"
CONCIERGE = "concierge"
SCHEDULING = "scheduling"


def agents_of(function: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The agents that `route` or `hand_over` offers; none if the function is not offered."""
    if function is None:
        return ()
    properties = function.get("parameters", {}).get("properties", {})
    return tuple(properties.get("agent", {}).get("enum", ()))


def picked(agents: tuple[str, ...], said: Said) -> str | None:
    """The one of `agents` that the message is for: one that it names, the one for appointments if it is about these, or
    else the concierge or any other; None if there is none."""
    for agent in agents:
        if re.search(rf"\b{re.escape(agent.lower())}\b", said.text):
            return agent
    wanted = SCHEDULING if about_appointments(said) else CONCIERGE
    for agent in (wanted, CONCIERGE, *agents):
        if agent in agents:
            return agent
    return None


def hand_over(agent: str, reason: str) -> ModelReply:
    """Hands the conversation over to `agent`."""
    return ModelReply(calls=(Call(name=HAND_OVER, arguments={"agent": agent, "reason": reason}),))
