"""The rehearsal of the concierge: makes small talk, and hands everything else over to the right agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline_agents.rehearsal.agents import HAND_OVER, SCHEDULING, agents_of, hand_over
from moorline_agents.rehearsal.conversation import last_text, latest_results
from moorline_agents.rehearsal.intents import Tone, about_appointments, read
from moorline_agents.transport import ModelReply

if TYPE_CHECKING:
    from moorline_agents.rehearsal.intents import Said
    from moorline_agents.transport import ModelRequest

_HELP = "I can help you with appointments: finding a free time, booking, moving or cancelling."
_JOKE = "Why did the calendar feel so popular? It had so many dates."


def reply(request: ModelRequest) -> ModelReply:
    """The next answer of the concierge."""
    said = read(last_text(request))
    agents = agents_of(request.functions.get(HAND_OVER))
    spoken = latest_results(request) or request.tool_choice == "none"
    if SCHEDULING in agents and about_appointments(said) and not spoken:
        return hand_over(SCHEDULING, "about appointments")
    return ModelReply(text=_small_talk(said))


def _small_talk(said: Said) -> str:
    answers = (
        ("joke" in said.text, _JOKE),
        ("how are you" in said.text, f"All in good order, thank you! {_HELP}"),
        (Tone.FAREWELL in said.tones, "Goodbye, and have a nice day!"),
        (Tone.THANKS in said.tones, "You're welcome!"),
        (Tone.GREETING in said.tones, f"Hello! {_HELP} What would you like to do?"),
        (Tone.HELP in said.tones, f"{_HELP} Just say what you would like."),
        (True, f"I am afraid that is more than this rehearsal of a model knows. {_HELP}"),
    )
    return next(answer for fits, answer in answers if fits)
