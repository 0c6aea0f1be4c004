"""Traces through OpenTelemetry's API: without an SDK nothing is recorded, and it costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.trace import SpanKind, TracerProvider

import moorline.tracing as core
from moorline.telemetry import conventions as names
from moorline.telemetry.spans import StatementSpan, TurnSpan, UnrecordedTurn
from moorline_checkpoint.watching import UNTRACED, Statement


class Tracing:
    """Makes spans of what a `Moorline` does: `Moorline(tracing=Tracing())`.

    A turn's span continues the caller's current one. Devices appear as their tags. With `content` also what people,
    models and tools say is recorded, which may be personal data; by default nothing of it is. Spans go to the provider
    that the program has set, or to `provider`.
    """

    def __init__(self, *, content: bool = False, provider: TracerProvider | None = None) -> None:
        self._content = content
        self._tracer = trace.get_tracer("moorline", version("moorline"), provider)

    def turn(self, device_tag: Callable[[], str], *, recovered: bool = False) -> core.TurnSpan:
        attributes = {names.TURN_RECOVERED: True} if recovered else None
        span = self._tracer.start_span(names.TURN, attributes=attributes)
        if span.is_recording():
            return TurnSpan(self._tracer, span, device_tag=device_tag(), content=self._content)
        # Without an SDK there is not even a decision that the turn's statements should see.
        return core.UNTRACED_TURN if span is trace.INVALID_SPAN else UnrecordedTurn(span)

    def statement(self, name: str) -> AbstractContextManager[Statement]:
        # What belongs to no trace, such as a group's own statement, is not worth one.
        if not trace.get_current_span().is_recording():
            return UNTRACED.statement(name)
        attributes = {names.DB_SYSTEM: "postgresql", names.DB_SUMMARY: name}
        return StatementSpan(self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes))
