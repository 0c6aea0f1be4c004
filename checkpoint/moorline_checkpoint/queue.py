"""The queue of a device: what is put into it, and what it answers to whoever asks for a turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from moorline_checkpoint.turn import TurnRecord

OnBusy = Literal["wait", "reject", "merge"]
"""What a message does that finds its device busy: wait for its turn, be refused, or wait and be answered in one turn
with those that wait next to it under an equal context."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A message for the queue; `context` and `resume` hold JSON values."""

    device_id: str
    message_id: str
    text: str
    resume: Mapping[str, Any] | None
    context: Mapping[str, Any]
    on_busy: OnBusy


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The message was answered before; this is its turn."""

    record: TurnRecord
    other_text: bool
    """Whether the message that was answered had another text."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The message is in the queue, or is already being answered: ask again."""


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Another turn of the device runs, or another message is first, and the caller would not wait."""

    retry_after: float
    """Seconds; what is left of the running turn's lease, 0 where a message that waits is about to be claimed."""


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The message was set aside after `MAX_ATTEMPTS`; `error` names the last failure."""

    error: str


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that was set aside, for whoever looks into it."""

    device_id: str
    message_id: str
    attempts: int
    error: str
    received_at: datetime
