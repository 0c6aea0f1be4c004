"""The prompt: what an agent's model is shown in a turn.

The instructions come first and the history behind them, both as in the turn before, so that a server which caches what
it has read finds it again. What changes from turn to turn is told in briefings (see `briefing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moorline_agents.briefing import briefed, of_hand_over
from moorline_agents.files import said
from moorline_agents.messages import Message
from moorline_agents.run import RunContext
from moorline_agents.unfinished import unfinished_note
from moorline_agents.window import Window, window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent


class Prompt:
    """The instructions and the briefings of an agent, and the window of its history."""

    def __init__(self, agent: Agent, *, room: int) -> None:
        self._instructions = agent.instructions
        self._briefing = agent.briefing
        self._names = (agent.name, *agent.aliases)
        self._tools = frozenset(tool.name for tool in agent.own_tools)
        self._room = room

    async def asked(self, texts: Sequence[str], context: RunContext) -> tuple[Message, ...]:
        """The person's messages as the agent's history keeps them, when its part of the turn begins."""
        handed, context.progress.handed_over = context.progress.handed_over, None
        asked = tuple(map(said, texts))
        return await self.brief(asked, context, of_hand_over(handed))

    async def brief(self, messages: tuple[Message, ...], context: RunContext, *told: str) -> tuple[Message, ...]:
        """The messages, the first of them with what the agent is told now."""
        own = self._names[0]
        briefing = "" if self._briefing is None else self._briefing(replace(context.tools, agent=own))
        now = briefing if isinstance(briefing, str) else await briefing
        parts = [part for part in (*told, now) if part]
        if not parts or not messages:
            return messages
        return ({**messages[0], "briefing": "\n\n".join(parts)}, *messages[1:])

    def window(self, history: Sequence[Message]) -> Window:
        """What a model is shown of the history, as long as it has room."""
        return window(history, self._room)

    def messages(self, shown: Window, context: RunContext) -> list[Message]:
        """The messages of a request."""
        told = self._instructions if isinstance(self._instructions, str) else self._instructions(context.tools)
        # Not in the history: once that message is answered, its own turn says what was done.
        note = unfinished_note(context.unfinished, names=self._names, tools=self._tools)
        messages = [briefed(message) for message in shown.messages]
        if note:
            last = max(at for at, message in enumerate(shown.messages) if message["role"] == "user")
            messages[last] = briefed(shown.messages[last], note)
        return [{"role": "system", "content": told}, *messages]
