"""The rehearsal of what a person's words answer: a plain yes or no in English, or the name of an option."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moorline_agents.rehearsal.conversation import last_text
from moorline_agents.rehearsal.dates import find_when
from moorline_agents.rehearsal.intents import ANY_DAY, Tone, read
from moorline_agents.rehearsal.unread import unread
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorline_agents.transport import ModelRequest

ANSWER = "answer"


def reply(request: ModelRequest) -> ModelReply:
    """What the person's message answers, if the rules can read all of it."""
    told: dict[str, Any] = json.loads(last_text(request))
    found = _option(told["message"], told["options"])
    arguments = {"answers": found is not None, "more": found is None}
    return ModelReply(calls=(Call(name=ANSWER, arguments=arguments | ({} if found is None else {"answer": found})),))


def _option(message: str, options: Sequence[str]) -> str | None:
    said = read(message)
    words = [option for option in options if option.casefold() in said.text.split()]
    if said.question or said.intent is not None or find_when(said.text, ANY_DAY) or unread(said.text, cancels=False):
        return None
    if len(words) == 1:
        return words[0]
    wanted = {"yes": Tone.YES in said.tones, "no": bool(said.tones & {Tone.NO, Tone.NEVER_MIND})}
    meant = [option for option in options if wanted.get(option.casefold())]
    return meant[0] if len(meant) == 1 else None
