"""The rehearsal of an agent without rules of its own: it repeats what it heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.rehearsal.agents import END_SESSION, HAND_OVER, SCHEDULING, agents_of, hand_over
from moorline_agents.rehearsal.conversation import last_text, latest_results
from moorline_agents.rehearsal.intents import Tone, about_appointments, read
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from moorline_agents.transport import ModelRequest

_SHOWN = 200


def reply(request: ModelRequest) -> ModelReply:
    """Ends the session at a goodbye, hands over what is about appointments, and otherwise repeats what it heard."""
    text = " ".join(last_text(request).split())
    said = read(text)
    spoken = bool(latest_results(request)) or request.tool_choice == "none"
    if Tone.FAREWELL in said.tones:
        ends = END_SESSION in request.functions and not spoken
        return ModelReply(calls=(Call(name=END_SESSION),)) if ends else ModelReply(text="Goodbye!")
    if SCHEDULING in agents_of(request.functions.get(HAND_OVER)) and about_appointments(said) and not spoken:
        return hand_over(SCHEDULING, "about appointments")
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ModelReply(text=f"This is a rehearsal, so I can only repeat what I heard: {shown or 'nothing'}")
