"""The events of a turn: what it does, told once, in order, as values that also have a JSON form.

Types and fields may be added; a reader skips what it does not know. `event_schema` describes the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

from moorline.errors import MoorlineError
from moorline.reply import Interrupt, Reply
from moorline_agents.messages import Usage
from moorline_agents.telling import Where, Why


@dataclass(frozen=True, kw_only=True)
class Told:
    """What every event says besides its own."""

    type: ClassVar[str]
    """The class's name in snake case, for JSON."""
    seq: int
    """The event's number in its run of the turn, from 1. A turn that has to run again is told anew."""
    turn_no: int
    """The turn's number on its device; 0 if no turn began."""
    agent: str | None
    """The agent whose part of the turn it is; None for the manager itself."""
    at: float
    """When it happened, in seconds since the epoch, by this process's clock."""
    device_id: str
    """The device. It is no part of the JSON: whoever reads that knows whose it is, or must not."""

    def __init_subclass__(cls) -> None:
        cls.type = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def to_json(self) -> dict[str, Any]:
        """The event as JSON, without the device."""
        own = {each.name: _json(getattr(self, each.name)) for each in fields(self) if each.name != "device_id"}
        return {"type": self.type, **own}


@dataclass(frozen=True, kw_only=True)
class TurnStarted(Told):
    """A turn begins, or one that was finished before is told again."""

    replayed: bool
    """Whether the message was answered before: then the stored reply follows, and nothing runs."""
    attempt: int
    """How often the turn has been begun, this time included."""
    recovered: bool
    """Whether it is finished in place of a process that crashed, so that its own caller is gone."""
    message_ids: tuple[str, ...]
    """The message that it answers, or the messages, in the order in which they came."""
    waited: float
    """Seconds from the call until the turn began; 0 for one that is recovered."""


@dataclass(frozen=True, kw_only=True)
class AgentStarted(Told):
    """An agent's part of the turn begins, or goes on after a question."""


@dataclass(frozen=True, kw_only=True)
class TextDelta(Told):
    """A piece of the reply, as the model writes it."""

    text: str


@dataclass(frozen=True, kw_only=True)
class TextWithdrawn(Told):
    """The deltas so far are not part of the reply: the model wrote them before it called a tool or handed over."""


@dataclass(frozen=True, kw_only=True)
class ModelStarted(Told):
    """A model is asked."""

    model: str


@dataclass(frozen=True, kw_only=True)
class ModelFinished(Told):
    """A model's answer is there, or failed."""

    model: str
    seconds: float
    first_text: float | None
    """Seconds until the first of its text was there; None if it wrote none that is shown."""
    failed: str | None
    """The name of the error; None if the answer is there."""


@dataclass(frozen=True, kw_only=True)
class UsageReported(Told):
    """What an answer cost, as its server counted it."""

    model: str
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class ToolStarted(Told):
    """A tool is called, which is told once in a turn. A call that stops to ask is told again in the turn that brings
    the answer. A rerun tells the calls of the run before it again, without making those that had an effect."""

    name: str
    call_id: str
    arguments: Mapping[str, Any]
    """As the conversation keeps them: empty if the model wrote what is no JSON object."""


@dataclass(frozen=True, kw_only=True)
class ToolFinished(Told):
    """A call has its result, or was refused."""

    name: str
    call_id: str
    result: Any
    """JSON; None if it was refused."""
    refused: Mapping[str, Any] | None
    """`error`, and mostly `code`, as the model is shown them; None if it was not refused."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckRefused(Told):
    """A check of the agent has refused what the person said, what the model answered, or a call."""

    check: str
    """The name of its function."""
    where: Where
    sentence: str
    """What is said instead: to the person, or of a call, to the model."""


@dataclass(frozen=True, kw_only=True)
class HandedOver(Told):
    """The agent hands the message over to another one."""

    to: str
    reason: str
    """In the words of the agent's model; may be empty."""


@dataclass(frozen=True, kw_only=True)
class SessionChanged(Told):
    """The session changes hands, from the turn's commit on."""

    lock: str | None
    """The agent that holds it; None if nobody does."""
    why: Why


@dataclass(frozen=True, kw_only=True)
class Asked(Told):
    """The turn ended with a question, which waits for its answer now."""

    interrupt: Interrupt


@dataclass(frozen=True, kw_only=True)
class TurnFinished(Told):
    """The last event of a committed turn. The deltas since the last withdrawal add up to its reply."""

    reply: Reply
    seconds: float
    """Since the turn began."""


@dataclass(frozen=True, kw_only=True)
class TurnFailed(Told):
    """The last event of a failed turn, or of a call that came to no turn: all text that was shown is withdrawn."""

    error: MoorlineError
    seconds: float
    """Since the turn began; 0 if none did."""


Event = (
    TurnStarted
    | AgentStarted
    | TextDelta
    | TextWithdrawn
    | ModelStarted
    | ModelFinished
    | UsageReported
    | ToolStarted
    | ToolFinished
    | CheckRefused
    | HandedOver
    | SessionChanged
    | Asked
    | TurnFinished
    | TurnFailed
)

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)


def _json(value: Any) -> Any:
    match value:
        case Reply() | Interrupt() | MoorlineError():
            return value.to_json()
        case Usage():
            return dict(value)
        case tuple():
            return list(value)
        case _:
            return value
