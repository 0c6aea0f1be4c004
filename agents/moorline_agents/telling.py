"""Telling: how the kit says what happens in a run, to whoever listens. By default nobody does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

from moorline_agents.messages import Usage

OnText = Callable[[str], None]
"""Gets the text of an answer, piece by piece."""

Why = Literal["taken", "released", "handed_over", "started_over"]
"""Why a session changed hands."""


Where = Literal["input", "output", "tool"]
"""What was checked: what the person said, what the model answered, or the arguments of a call."""


class Telling(Protocol):
    """Is told what happens in a run of a graph, in order, on the loop of the run. No method raises or waits."""

    @property
    def heard(self) -> bool:
        """Whether anybody listens; if not, what is expensive to find out need not be told."""

    @property
    def said(self) -> str:
        """The text of the reply so far; empty if nobody listens."""

    def agent_started(self, agent: str) -> None:
        """The agent's part of the turn begins, or goes on after a question. What follows is told of it."""

    def text(self, piece: str, /) -> None:
        """The next piece of the reply."""

    def withdraw(self) -> None:
        """The text so far is not part of the reply after all."""

    def hold(self) -> None:
        """From now on text is not told yet: it may still be withdrawn unheard."""

    def release(self) -> None:
        """What was held is told, and what follows."""

    def asking(self, model: str, *, shown: bool = True) -> AbstractContextManager[OnText | None]:
        """The block asks the model, and what its `on_text` shall be. With `shown` the text is part of the reply."""

    def model_started(self, model: str) -> None:
        """A model is asked; for models whose text comes in another way than through `asking`."""

    def model_finished(self, model: str, *, seconds: float, first_text: float | None, failed: str | None) -> None:
        """Its answer is there after some seconds, with its first text after others, or failed with an error of that
        name."""

    def spent(self, model: str, usage: Usage) -> None:
        """What an answer cost."""

    def tool_started(self, name: str, call_id: str, arguments: str | Mapping[str, Any]) -> None:
        """A call begins, or is told again because an earlier run of the turn made it, or because it asked beside other
        calls and is made again alone. Text is a JSON object."""

    def tool_finished(
        self, name: str, call_id: str, *, result: Any = None, refused: Mapping[str, Any] | None = None
    ) -> None:
        """The call has its result, or was refused."""

    def check_refused(self, check: str, where: Where, sentence: str) -> None:
        """A check of the agent has refused something; the sentence is what is said instead."""

    def handed_over(self, to: str, reason: str) -> None:
        """The agent hands the message over."""

    def session_changed(self, lock: str | None, why: Why) -> None:
        """Another agent holds the session, or nobody."""


class Silence:
    """Tells nobody."""

    heard = False
    said = ""

    def agent_started(self, agent: str) -> None:
        pass

    def text(self, piece: str, /) -> None:
        pass

    def withdraw(self) -> None:
        pass

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def asking(self, model: str, *, shown: bool = True) -> AbstractContextManager[None]:  # noqa: ARG002
        return _NOBODY

    def model_started(self, model: str) -> None:
        pass

    def model_finished(self, model: str, *, seconds: float, first_text: float | None, failed: str | None) -> None:
        pass

    def spent(self, model: str, usage: Usage) -> None:
        pass

    def tool_started(self, name: str, call_id: str, arguments: str | Mapping[str, Any]) -> None:
        pass

    def tool_finished(
        self, name: str, call_id: str, *, result: Any = None, refused: Mapping[str, Any] | None = None
    ) -> None:
        pass

    def check_refused(self, check: str, where: Where, sentence: str) -> None:
        pass

    def handed_over(self, to: str, reason: str) -> None:
        pass

    def session_changed(self, lock: str | None, why: Why) -> None:
        pass


_NOBODY: AbstractContextManager[None] = nullcontext()
SILENCE = Silence()
