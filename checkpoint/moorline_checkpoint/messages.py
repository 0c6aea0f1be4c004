"""Messages: as they come in, and as a turn answers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from moorline_checkpoint.files import FileRef

OnBusy = Literal["wait", "reject", "merge"]
"""What a message does if its device is busy: wait for its turn, be rejected, or wait and be answered in one turn
together with the messages next to it that have an equal context."""


@dataclass(frozen=True, kw_only=True)
class BusyPolicy:
    """The meaning of an `OnBusy`; the claim's SQL has the same table."""

    waits: bool = False
    """Keeps a place in the queue."""
    rejects: bool = False
    """Is rejected at once while a turn runs, or while the device's row is locked."""
    merges: bool = False
    """Is answered together with those next to it in the queue."""


POLICIES: Mapping[OnBusy, BusyPolicy] = MappingProxyType(
    {
        "wait": BusyPolicy(waits=True),
        "reject": BusyPolicy(rejects=True),
        "merge": BusyPolicy(waits=True, merges=True),
    }
)
"""Every policy."""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A message that answers an interrupt: `value`, which is JSON, is what the interrupted node gets back. `by` is who
    answers, if it is not the person whose conversation it is: `Resume(…, by="Eva")`."""

    interrupt_id: str
    value: Any
    by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        answer = {"interrupt_id": self.interrupt_id, "value": self.value}
        return answer if self.by is None else {**answer, "by": self.by}


@dataclass(frozen=True, kw_only=True)
class IncomingMessage:
    """A message for its device's queue."""

    device_id: str
    message_id: str
    text: str
    """For a `Resume`, its value as text."""
    resume: Resume | None
    values: Mapping[str, Any]
    """The other keys of the caller's context; JSON."""
    on_busy: OnBusy
    person_id: str | None = None
    """Whose message it is, by the server's word: the device joins this person's conversation first."""
    joins: str | None = None
    """The conversation that the device is to join; then it is no message, but keeps a place in the queue for that."""
    files: tuple[FileRef, ...] = ()
    """The files that came with it; `Files.keep` stores their bytes."""


@dataclass(frozen=True, kw_only=True)
class TurnMessage:
    """A message that a turn answers."""

    id: str
    """The ID that its device gave it."""
    text: str
    files: tuple[FileRef, ...] = ()
