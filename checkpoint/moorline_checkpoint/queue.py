"""What the queue of a device answers to whoever asks for a turn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moorline_checkpoint.messages import Resume
from moorline_checkpoint.turn import TurnRecord


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
    """Seconds, an estimate: what the device's turns usually take, less what has passed since the running one began."""


@dataclass(frozen=True, kw_only=True)
class StaleResume:
    """The message answers an interrupt that waits for no answer any more. Nothing of it is stored."""

    resume: Resume


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The message was set aside after `MAX_ATTEMPTS`; `error` names the last failure."""

    error: str


QueueAnswer = Replayed | Waiting | Busy | StaleResume | Dead
"""What is answered instead of a turn."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that was set aside, for whoever looks into it."""

    device_id: str
    message_id: str
    attempts: int
    error: str
    received_at: datetime
