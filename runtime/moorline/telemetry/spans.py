"""What runs, as spans of OpenTelemetry: a turn, an agent's part of it, a model call, a tool call, a statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from langgraph.errors import GraphInterrupt
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from moorline.reply import Reply
from moorline.telemetry import content
from moorline.telemetry import conventions as names
from moorline_agents.messages import Message, Usage
from moorline_agents.tools import ToolRefused
from moorline_agents.tracing import Untraced
from moorline_checkpoint.turn import OpenTurn


class Running:
    """A span that ends with its block, or with `end`. In the block it is the current one."""

    __slots__ = ("_token", "span")

    def __init__(self, span: Span) -> None:
        self.span = span

    def __enter__(self) -> Self:
        self._token = context.attach(trace.set_span_in_context(self.span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        context.detach(self._token)
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """An error gives the name of its class: its text may quote the conversation."""
        if error is not None and self.is_failure(error):
            failed = type(error).__name__
            self.span.set_attribute(names.ERROR, failed)
            self.span.set_status(Status(StatusCode.ERROR, failed))
        self.span.end()

    def is_failure(self, error: BaseException) -> bool:
        """Whether the span ends in an error: to ask, and to refuse a call, is none."""
        return not isinstance(error, GraphInterrupt | ToolRefused)


class StatementSpan(Running):
    """A statement, or the wait for the group that it goes with."""

    __slots__ = ()

    def grouped(self, size: int) -> None:
        if size > 1:  # a single one is no batch, by the conventions
            self.span.set_attribute(names.DB_BATCH_SIZE, size)


class ModelSpan(Running):
    """A model call."""

    __slots__ = ()

    def answered(self, usage: Usage, *, finish_reason: str | None, message: Message | None) -> None:
        if any(usage.values()):  # otherwise the server has not counted
            self.span.set_attribute(names.INPUT_TOKENS, usage.prompt_tokens)
            self.span.set_attribute(names.OUTPUT_TOKENS, usage.completion_tokens)
        if finish_reason is not None:
            self.span.set_attribute(names.FINISH_REASONS, [finish_reason])
        if message is not None:
            self.span.set_attribute(names.OUTPUT_MESSAGES, content.output_messages(message, finish_reason or "stop"))


class ToolSpan(Running):
    """A tool call."""

    __slots__ = ("_content",)

    def __init__(self, span: Span, *, content: bool) -> None:
        super().__init__(span)
        self._content = content

    def returned(self, result: Any) -> None:
        if self._content:
            self.span.set_attribute(names.TOOL_RESULT, content.result(result))

    def end(self, error: BaseException | None = None) -> None:
        if isinstance(error, GraphInterrupt):
            self.span.set_attribute(names.TOOL_ASKED, True)
        elif isinstance(error, ToolRefused):
            self.span.set_attribute(names.TOOL_REFUSED, error.code or "")
        super().end(error)


class TurnSpan(Running):
    """A call with its turn, or a turn that is recovered."""

    __slots__ = ("_content", "_device_tag", "_part", "_tracer")

    followed = True

    def __init__(self, tracer: Tracer, span: Span, *, device_tag: str, content: bool) -> None:
        super().__init__(span)
        span.set_attribute(names.CONVERSATION, device_tag)
        self._tracer = tracer
        self._content = content
        self._device_tag = device_tag
        self._part: Running | None = None

    @property
    def content(self) -> bool:
        return self._content

    def begun(self, turn: OpenTurn) -> None:
        self.span.set_attribute(names.TURN_NUMBER, turn.turn_no)
        self.span.set_attribute(names.TURN_ATTEMPT, turn.attempts)
        self.span.set_attribute(names.TURN_MESSAGES, len(turn.messages))

    def replied(self, reply: Reply) -> None:
        self.span.set_attribute(names.TURN_NUMBER, reply.turn_no)
        if reply.agent is not None:
            self.span.set_attribute(names.AGENT, reply.agent)
        told = (
            (names.TURN_REPLAYED, reply.replayed),
            (names.TURN_ASKED, reply.interrupt is not None),
            (names.TURN_DEGRADED, reply.degraded),
        )
        for name, said in told:
            if said:
                self.span.set_attribute(name, True)

    def enter(self, agent: str) -> None:
        self.leave()
        attributes = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT: agent,
            names.CONVERSATION: self._device_tag,
        }
        self._part = Running(self._child(f"{names.INVOKE_AGENT} {agent}", SpanKind.INTERNAL, attributes))

    def leave(self) -> None:
        if self._part is not None:
            self._part.end()
            self._part = None

    @contextmanager
    def part(self) -> Iterator[None]:
        token = context.attach(self._context())
        try:
            yield
        finally:
            context.detach(token)

    def model(self, name: str, *, provider: str, messages: Sequence[Message]) -> ModelSpan:
        attributes = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: provider,
            names.CONVERSATION: self._device_tag,
        }
        if name:
            attributes[names.REQUEST_MODEL] = name
        if self._content:
            attributes[names.INPUT_MESSAGES] = content.input_messages(messages)
        return ModelSpan(self._child(f"{names.CHAT} {name}".rstrip(), SpanKind.CLIENT, attributes))

    def tool(self, name: str, *, call_id: str, arguments: str) -> ToolSpan:
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL: name,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL: call_id,
        }
        if self._content:
            attributes[names.TOOL_ARGUMENTS] = arguments
        child = self._child(f"{names.EXECUTE_TOOL} {name}", SpanKind.INTERNAL, attributes)
        return ToolSpan(child, content=self._content)

    def end(self, error: BaseException | None = None) -> None:
        if self._part is not None:
            self._part.end(error)
        super().end(error)

    def _child(self, name: str, kind: SpanKind, attributes: dict[str, Any]) -> Span:
        return self._tracer.start_span(name, context=self._context(), kind=kind, attributes=attributes)

    def _context(self) -> context.Context:
        """What is begun in it belongs to the agent's part, or to the turn between two of them."""
        return trace.set_span_in_context(self.span if self._part is None else self._part.span)


class UnrecordedTurn(Running, Untraced):
    """A turn of which nothing is recorded. What runs inside sees the caller's decision not to."""

    def begun(self, turn: OpenTurn) -> None:
        pass

    def replied(self, reply: Reply) -> None:
        pass
