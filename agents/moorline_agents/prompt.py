"""The prompt: what an agent's model is shown in a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moorline_agents.messages import Message
from moorline_agents.run import RunContext
from moorline_agents.unfinished import unfinished_note
from moorline_agents.window import Window, window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent


class Prompt:
    """The instructions of an agent, and the window of its history."""

    def __init__(self, agent: Agent, *, room: int) -> None:
        self._instructions = agent.instructions
        self._names = (agent.name, *agent.aliases)
        self._tools = frozenset(tool.name for tool in agent.tools)
        self._room = room

    def system(self, context: RunContext) -> Message:
        """The first message of every request."""
        told = self._instructions if isinstance(self._instructions, str) else self._instructions(context.tools)
        # Not in the history: once that message is answered, its own turn says what was done.
        note = unfinished_note(context.unfinished, names=self._names, tools=self._tools)
        return {"role": "system", "content": f"{told}\n\n{note}" if note else told}

    def window(self, history: Sequence[Message]) -> Window:
        """What follows it, as long as the model has room."""
        return window(history, self._room)
