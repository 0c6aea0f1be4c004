"""Telling what a turn does: each event stamped, numbered and given to whoever listens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from moorline.errors import MoorlineError
from moorline.events import (
    EVENT_TYPES,
    AgentStarted,
    Asked,
    CheckRefused,
    Event,
    HandedOver,
    ModelFinished,
    ModelStarted,
    SessionChanged,
    TextDelta,
    TextWithdrawn,
    ToolFinished,
    ToolStarted,
    TurnFailed,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from moorline.reply import Reply
from moorline_agents.messages import Usage
from moorline_agents.telling import OnText, Silence, Telling, Where, Why
from moorline_checkpoint.turn import OpenTurn

Hear = Callable[[Event], None]

Hears = Mapping[type[Event], Sequence[Hear]]
"""Who is told the events of a type. What nobody is told is not even made."""


class TurnTelling(Telling, Protocol):
    """Is told of one call and its turn, or of a turn that is recovered. However it ends, that is told once."""

    def begin(self, turn: OpenTurn, *, recovered: bool = False) -> None:
        """A turn runs."""

    def replay(self, reply: Reply) -> None:
        """The message was answered before."""

    def finish(self, reply: Reply) -> None:
        """The turn is committed, or its reply told again."""

    def fail(self, error: MoorlineError) -> None:
        """The turn has failed, or the call came to none."""


class Unheard(Silence):
    """The telling of a turn to which nobody listens."""

    def begin(self, turn: OpenTurn, *, recovered: bool = False) -> None:
        pass

    def replay(self, reply: Reply) -> None:
        pass

    def finish(self, reply: Reply) -> None:
        pass

    def fail(self, error: MoorlineError) -> None:
        pass


UNHEARD = Unheard()


class Heard:
    """The telling of a turn as events, each stamped and numbered."""

    heard = True

    def __init__(self, hears: Hears, *, device_id: str) -> None:
        self._hears = hears
        self._device_id = device_id
        self._called_at = time.monotonic()
        self._begun_at: float | None = None
        self._turn_no = 0
        self._seq = 0
        self._agent: str | None = None
        self._ended = False
        self._calls: dict[str, float] = {}
        """When the calls began that run, by ID."""
        self._pieces: list[str] = []
        """The deltas since the last withdrawal."""
        self._held: list[str] | None = None
        """Text that is not told yet; None unless it is held."""

    @property
    def said(self) -> str:
        return "".join(self._pieces)

    def begin(self, turn: OpenTurn, *, recovered: bool = False) -> None:
        self._turn_no, self._begun_at = turn.turn_no, time.monotonic()
        self._tell(
            TurnStarted,
            replayed=False,
            attempt=turn.attempts,
            recovered=recovered,
            message_ids=tuple(message.id for message in turn.messages),
            waited=0.0 if recovered else self._waited(),
        )

    def replay(self, reply: Reply) -> None:
        self._turn_no, self._agent, self._begun_at = reply.turn_no, reply.agent, time.monotonic()
        ids = () if reply.message_id is None else (reply.message_id,)
        self._tell(TurnStarted, replayed=True, attempt=1, recovered=False, message_ids=ids, waited=self._waited())

    def agent_started(self, agent: str) -> None:
        self._agent = agent
        self._tell(AgentStarted)

    def text(self, piece: str, /) -> None:
        if self._held is not None:
            self._held.append(piece)
        elif piece:
            self._pieces.append(piece)
            self._tell(TextDelta, text=piece)

    def withdraw(self) -> None:
        if self._held is not None:
            self._held.clear()
        if self._pieces:
            self._pieces.clear()
            self._tell(TextWithdrawn)

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held or (), None
        for piece in held:
            self.text(piece)

    def asking(self, model: str, *, shown: bool = True) -> _Asking:
        return _Asking(self, model, shown=shown)

    def model_started(self, model: str) -> None:
        self._tell(ModelStarted, model=model)

    def model_finished(self, model: str, *, seconds: float, first_text: float | None, failed: str | None) -> None:
        self._tell(ModelFinished, model=model, seconds=seconds, first_text=first_text, failed=failed)

    def spent(self, model: str, usage: Usage) -> None:
        if usage.prompt_tokens or usage.completion_tokens:  # a server may not say
            self._tell(UsageReported, model=model, usage=usage)

    def tool_started(self, name: str, call_id: str, arguments: str | Mapping[str, Any]) -> None:
        if call_id in self._calls:  # it asked beside other calls, and is made again alone
            return
        self._calls[call_id] = time.monotonic()
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
        self._tell(ToolStarted, name=name, call_id=call_id, arguments=given or {})

    def tool_finished(
        self, name: str, call_id: str, *, result: Any = None, refused: Mapping[str, Any] | None = None
    ) -> None:
        now = time.monotonic()
        seconds = now - self._calls.pop(call_id, now)
        self._tell(ToolFinished, name=name, call_id=call_id, result=result, refused=refused, seconds=seconds)

    def check_refused(self, check: str, where: Where, sentence: str) -> None:
        self._tell(CheckRefused, check=check, where=where, sentence=sentence)

    def handed_over(self, to: str, reason: str) -> None:
        self._tell(HandedOver, to=to, reason=reason)

    def session_changed(self, lock: str | None, why: Why) -> None:
        if self._turn_no:  # a turn without a store keeps no lock
            self._tell(SessionChanged, lock=lock, why=why)

    def finish(self, reply: Reply) -> None:
        if self._ended:
            return
        if reply != self.said:
            # The reply was not written here: it was stored before, or made without a model.
            self.withdraw()
            self.text(str(reply))
        if reply.interrupt is not None and not reply.replayed:
            self._tell(Asked, interrupt=reply.interrupt)
        self._tell(TurnFinished, reply=reply, seconds=self._seconds())
        self._ended = True

    def fail(self, error: MoorlineError) -> None:
        self._tell(TurnFailed, error=error, seconds=self._seconds())
        self._ended = True

    def _waited(self) -> float:
        return time.monotonic() - self._called_at

    def _seconds(self) -> float:
        return 0.0 if self._begun_at is None else time.monotonic() - self._begun_at

    def _tell(self, kind: type[Event], **what: Any) -> None:
        if self._ended:  # a thread of the turn may outlive it
            return
        self._seq += 1
        hears = self._hears.get(kind)
        if hears is None:
            return
        # A frozen dataclass's own `__init__` sets field by field, which takes three times as long.
        event = object.__new__(kind)
        event.__dict__.update(
            what, seq=self._seq, turn_no=self._turn_no, agent=self._agent, at=time.time(), device_id=self._device_id
        )
        for hear in hears:
            hear(event)


class _Asking:
    """A block that asks a model."""

    __slots__ = ("_begun", "_first_text", "_model", "_shown", "_telling")

    def __init__(self, telling: Heard, model: str, *, shown: bool) -> None:
        self._telling, self._model, self._shown = telling, model, shown
        self._first_text: float | None = None

    def __enter__(self) -> OnText | None:
        self._begun = time.monotonic()
        self._telling.model_started(self._model)
        return self._on_text if self._shown else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._telling.model_finished(
            self._model,
            seconds=time.monotonic() - self._begun,
            first_text=self._first_text,
            failed=None if kind is None else kind.__name__,
        )

    def _on_text(self, piece: str, /) -> None:
        if self._first_text is None:
            self._first_text = time.monotonic() - self._begun
        self._telling.text(piece)


def telling(hears: Hears, device_id: str, also: Hear | None = None) -> TurnTelling:
    """The telling of a turn of the device to all who listen, if anybody does. `also` is told everything."""
    if also is not None:
        hears = {kind: (*hears.get(kind, ()), also) for kind in EVENT_TYPES}
    return Heard(hears, device_id=device_id) if hears else UNHEARD


def failed(error: MoorlineError) -> TurnFailed:
    """The only event of a call that came to no runtime."""
    return TurnFailed(seq=1, turn_no=0, agent=None, at=time.time(), device_id="", error=error, seconds=0.0)
