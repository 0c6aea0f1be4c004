"""The events of a streamed turn."""

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
    """The deltas so far are not part of the reply: the model wrote them before it called a tool or handed over."""


@dataclass(frozen=True, kw_only=True)
class TurnDone:
    """The last event of a committed turn. The deltas since the last withdrawal add up to its reply."""

    reply: Reply


@dataclass(frozen=True, kw_only=True)
class TurnFailed:
    """The last event of a failed turn: all text of the turn that was shown is withdrawn."""

    error: MoorlineError


Event = TextDelta | TextWithdrawn | TurnDone | TurnFailed
