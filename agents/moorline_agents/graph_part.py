"""A graph's part of a turn: what it says, uses and decides while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tracers.context import register_configure_hook

from moorline_agents.graph_listener import Listener
from moorline_agents.telling import Telling


@dataclass(kw_only=True)
class Part:
    """The part of a turn that a graph is running; its tools find it with `current_part`."""

    agent: str
    """The agent whose graph it is."""
    others: Mapping[str, str]
    """What the other agents are for, by name."""
    listener: Listener
    handoff: str | None = None
    reason: str = ""
    """Why it hands over."""
    note: str = ""
    """What the next agent should know."""
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
        self._calling: str | None = None
        """The last message that called a tool."""

    def piece(self, message: Any, task: str) -> None:
        """A message, or a piece of one, that a task of the graph made. One that calls a tool is not the answer."""
        if not isinstance(message, AIMessage):
            return
        if message.tool_calls or message.invalid_tool_calls or getattr(message, "tool_call_chunks", None):
            self._calling = message.id
            if message.id == self._message:
                self.withdraw()
        if message.id == self._calling:
            return
        text = str(message.text)
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
