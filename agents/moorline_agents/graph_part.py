"""A graph's part of a turn: what it says, uses and decides while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from moorline_agents.messages import Usage
from moorline_agents.telling import Telling


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one answer of a model cost, as the server counted it."""

    id: str | None
    model: str
    usage: Usage


def spent_by(message: Any) -> Spent | None:
    """What a message cost, if it says so."""
    counted = message.usage_metadata if isinstance(message, AIMessage) else None
    if not counted:
        return None
    return Spent(
        id=message.id,
        model=str(message.response_metadata.get("model_name", "")),
        usage=Usage(counted["input_tokens"], counted["output_tokens"]),
    )


class Listener(BaseCallbackHandler):
    """Hears what LangChain's models answer, in whichever node, graph or tool they are asked."""

    run_inline = True

    def __init__(self) -> None:
        self.spent: list[Spent] = []

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        for generation in (each for generations in response.generations for each in generations):
            spent = spent_by(generation.message) if isinstance(generation, ChatGeneration) else None
            if spent is not None:
                self.spent.append(spent)

    def all_spent(self, messages: Sequence[Any]) -> list[Spent]:
        """What was heard, and what those of the graph's new messages cost whose models were asked in another way."""
        unseen = list(self.spent)
        unheard: list[Spent] = []
        for spent in filter(None, map(spent_by, messages)):
            # A node may have put an answer that was heard into a message of its own.
            heard = next((one for one in unseen if one.id == spent.id or one.usage == spent.usage), None)
            if heard is None:
                unheard.append(spent)
            else:
                unseen.remove(heard)
        return [*self.spent, *unheard]


@dataclass(kw_only=True)
class Part:
    """The part of a turn that a graph is running; its tools find it with `current_part`."""

    others: Mapping[str, str]
    """What the other agents are for, by name."""
    listener: Listener = field(default_factory=Listener)
    handoff: str | None = None
    released: bool = False


_part: ContextVar[Part | None] = ContextVar("moorline_graph_part", default=None)
_listener: ContextVar[Listener | None] = ContextVar("moorline_listener", default=None)
register_configure_hook(_listener, inheritable=True)


def current_part() -> Part | None:
    """The part that the calling code belongs to."""
    return _part.get()


@contextmanager
def running(part: Part) -> Iterator[None]:
    """While the block runs, code that it calls and tasks and threads that it starts belong to the part."""
    tokens = _part.set(part), _listener.set(part.listener)
    try:
        yield
    finally:
        _part.reset(tokens[0])
        _listener.reset(tokens[1])


class Writing:
    """Passes the text of a graph's messages on while models write them: of one message at a time, because the last one
    will be the answer. An earlier one is withdrawn."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._message: str | None = None
        self._task: str | None = None

    def piece(self, message: Any, task: str) -> None:
        """A message, or a piece of one, that a task of the graph made."""
        text = str(message.text) if isinstance(message, AIMessage) else ""
        if not text:
            return
        if message.id != self._message:
            if self._task not in (None, task):
                return  # written beside the one that is being shown
            self.withdraw()
            self._message = message.id
        self._task = task
        self._telling.text(text)

    def step(self) -> None:
        """The tasks that ran beside each other have ended."""
        self._task = None

    def withdraw(self) -> None:
        """What was shown is not the answer."""
        if self._message is not None:
            self._message = None
            self._telling.withdraw()
