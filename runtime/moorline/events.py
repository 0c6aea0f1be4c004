"""What a streamed turn tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from moorline.errors import MoorlineError
from moorline.reply import Reply


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A piece of the reply, as the model writes it."""

    text: str


@dataclass(frozen=True, kw_only=True)
class TextWithdrawn:
    """The deltas so far are not part of the reply: the model said them before it called tools or handed over."""


@dataclass(frozen=True, kw_only=True)
class TurnDone:
    """The last event of a turn that was committed. Its reply is what the deltas since the last withdrawal make up."""

    reply: Reply


@dataclass(frozen=True, kw_only=True)
class TurnFailed:
    """The last event of a turn that was not committed: what was shown of it is withdrawn."""

    error: MoorlineError


Event = TextDelta | TextWithdrawn | TurnDone | TurnFailed
