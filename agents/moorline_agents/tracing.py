"""Tracing: how the kit says what runs inside what, to whoever follows it. By default nobody does.

Telling says in order what happens; tracing has blocks, so that what an agent's code does inside one (an HTTP request, a
query) is found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Protocol, Self

from moorline_agents.messages import Message, Usage


class Span(Protocol):
    """Something that runs since the span was made. As a block it is what everything begun inside belongs to, and it
    ends with the block. Without a block it ends with `end`. No method raises or waits."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def end(self, error: BaseException | None = None) -> None:
        """It is over, because of an error if there is one."""


class ModelSpan(Span, Protocol):
    """A model is asked."""

    def answered(self, usage: Usage, *, finish_reason: str | None, message: Message | None) -> None:
        """Its answer is there. The message is given if content is wanted."""


class ToolSpan(Span, Protocol):
    """A tool runs. It may end with a `ToolRefused`, which is no failure."""

    def returned(self, result: Any) -> None:
        """The call has its result, as the model is shown it."""


class Tracing(Protocol):
    """Follows a run of a graph."""

    @property
    def followed(self) -> bool:
        """Whether anybody follows; if not, what is expensive to find out need not be said."""

    @property
    def content(self) -> bool:
        """Whether texts, arguments and results are wanted; nothing of them is kept otherwise."""

    def enter(self, agent: str) -> None:
        """The agent's part of the turn begins, or goes on after a question."""

    def leave(self) -> None:
        """The agent's part is over."""

    def part(self) -> AbstractContextManager[object]:
        """What is begun in the block belongs to the agent's part."""

    def model(self, name: str, *, provider: str, messages: Sequence[Message]) -> ModelSpan:
        """A model is being asked. The provider is whose API it speaks, such as `openai`."""

    def tool(self, name: str, *, call_id: str, arguments: str) -> ToolSpan:
        """A tool is being run; the arguments are the model's JSON."""


class UntracedSpan:
    """A span that nobody follows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass

    def answered(self, usage: Usage, *, finish_reason: str | None, message: Message | None) -> None:
        pass

    def returned(self, result: Any) -> None:
        pass


class Untraced:
    """Follows nothing."""

    followed = False
    content = False

    def enter(self, agent: str) -> None:
        pass

    def leave(self) -> None:
        pass

    def part(self) -> AbstractContextManager[object]:
        return _NO_PART

    def model(self, name: str, *, provider: str, messages: Sequence[Mapping[str, Any]]) -> UntracedSpan:  # noqa: ARG002
        return _NO_SPAN

    def tool(self, name: str, *, call_id: str, arguments: str) -> UntracedSpan:  # noqa: ARG002
        return _NO_SPAN


_NO_PART = nullcontext()
_NO_SPAN = UntracedSpan()
UNTRACED = Untraced()
