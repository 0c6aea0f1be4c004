"""What a turn remembers in case it has to run again: the port through which the kit calls models and tools.

The kit defines the protocol; a runtime brings a journal that survives a crash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from moorline_agents.messages import Message
from moorline_agents.tools import Tool, ToolContext

Admit = Callable[[str], Awaitable[str]]
"""Decides with which arguments a call is made, if at all; see `Journal.perform`."""


class Journal(Protocol):
    """The memory of one turn. Answers and effects are recalled in the order in which they were noted."""

    @property
    def rerunning(self) -> bool:
        """Whether an earlier run of the turn left anything that has not been recalled yet."""

    def begins_with(self) -> str | None:
        """The agent (or the router) of the first entry that an earlier run of the turn left; None if there is none.
        This is asked before anything else."""

    def recall(self, *asked: str) -> Message | None:
        """The answer that an earlier run of the turn got at this point from the model of the router, or of the
        agent with one of these names; None if the earlier run did not get this far."""

    def recalls(self, *asked: str) -> bool:
        """Whether the next that an earlier run of the turn left was noted under one of these names."""

    def forget(self) -> None:
        """Drops what an earlier run has left: it cannot be done again, because the conversation has gone on since."""

    def note(self, asked: str, answer: Message) -> None:
        """Remembers an answer, of an agent's model one that calls tools; it is durable before a tool with an effect
        runs. What is no answer of the agent's model is noted under the agent's name, a dot, and what it is."""

    async def perform(self, tool: Tool, arguments: str, context: ToolContext, admit: Admit | None = None) -> Any:
        """Runs a tool of `context.agent`, or returns the result that an earlier run of the turn got from it. Raises
        `ToolRefused` if the tool does, or did.

        `admit` is given the arguments before a call that no earlier run has made, and returns those to make it with;
        it may raise `ToolRefused` like the tool. An earlier run's call keeps the arguments that it was made with."""


class NoJournal:
    """For graphs that run outside a turn: nothing is remembered."""

    rerunning = False

    def begins_with(self) -> str | None:
        return None

    def recall(self, *asked: str) -> Message | None:  # noqa: ARG002 - there is nothing to look for
        return None

    def recalls(self, *asked: str) -> bool:  # noqa: ARG002 - nothing was left
        return False

    def forget(self) -> None:
        pass

    def note(self, asked: str, answer: Message) -> None:
        pass

    async def perform(self, tool: Tool, arguments: str, context: ToolContext, admit: Admit | None = None) -> Any:
        return await tool.call(arguments if admit is None else await admit(arguments), context)
