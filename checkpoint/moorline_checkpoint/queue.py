"""What a device's queue answers when a turn is asked for."""

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
    """Whether the message that was answered had a different text."""
    notice: str | None = None
    """What the device is told with this reply, as `OpenTurn.notice`."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The message is in the queue, or is already being answered: ask again."""


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Another turn of the device is running, or another message is first, and the message does not wait: its caller
    does not want it to, or as many wait as may."""

    full: bool
    """Whether it is refused because as many messages of the device wait as may."""
    retry_after: float
    """Estimated seconds: what the device's turns usually take, less the time since the running one began."""


@dataclass(frozen=True, kw_only=True)
class StaleResume:
    """The message answers an interrupt that no longer waits for an answer. Nothing of the message is stored."""

    resume: Resume


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The message was set aside after `MAX_ATTEMPTS`; `error` names the last failure."""

    error: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The device leads to the conversation that it was to join."""


@dataclass(frozen=True, kw_only=True)
class Gone:
    """The conversation that the device was to join has been erased."""


QueueAnswer = Replayed | Waiting | Busy | StaleResume | Dead | Joined | Gone
"""The answers that are given instead of a turn."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that was set aside, for an operator to look into."""

    device_id: str
    message_id: str
    attempts: int
    error: str
    received_at: datetime
