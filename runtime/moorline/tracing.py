"""Tracing: how the runtime says what runs inside what; `moorline.telemetry` makes OpenTelemetry's spans of it.

A turn's span is what the caller's own leads to: it holds the wait in the queue, the agents' parts with their models and
tools, and the statements. By default nobody follows, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import moorline_agents.tracing as kit
import moorline_checkpoint.watching as store
from moorline.reply import Reply
from moorline_checkpoint.turn import OpenTurn


class TurnSpan(kit.Span, kit.Tracing, Protocol):
    """One call until its reply is there, also after its caller has gone; or a turn that is recovered."""

    def begun(self, turn: OpenTurn) -> None:
        """A turn of the call runs. A replay comes to none."""

    def replied(self, reply: Reply) -> None:
        """The reply is there."""


class Tracing(store.Tracing, Protocol):
    """Follows everything that a `Moorline` does."""

    def turn(self, device_tag: Callable[[], str], *, recovered: bool = False) -> TurnSpan:
        """A call comes in, in whose context its span belongs, or a crashed process's turn is about to be finished."""


class _UntracedTurn(kit.UntracedSpan, kit.Untraced):
    """A turn that nobody follows."""

    def begun(self, turn: OpenTurn) -> None:
        pass

    def replied(self, reply: Reply) -> None:
        pass


class Untraced(store.Untraced):
    """Follows nothing."""

    def turn(self, device_tag: Callable[[], str], *, recovered: bool = False) -> TurnSpan:  # noqa: ARG002 - as the protocol's
        return UNTRACED_TURN


UNTRACED_TURN: TurnSpan = _UntracedTurn()
UNTRACED = Untraced()
