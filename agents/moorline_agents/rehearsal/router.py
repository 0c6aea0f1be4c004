"""The rehearsal of the router: which agent a message is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.rehearsal.agents import ROUTE, agents_of, picked
from moorline_agents.rehearsal.conversation import last_text
from moorline_agents.rehearsal.intents import read
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from moorline_agents.transport import ModelRequest


def reply(request: ModelRequest) -> ModelReply:
    """Routes the person's last message."""
    agent = picked(agents_of(request.functions[ROUTE]), read(last_text(request)))
    return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": agent or ""}),))
