"""The prompt: what an agent's model is shown in a turn.

The instructions come first and the history behind them, both as in the turn before, so that a server which caches what
it has read finds it again. What changes from turn to turn is told in briefings (see `briefing`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moorline_agents.briefing import briefed, of_hand_over, told_first
from moorline_agents.files import said
from moorline_agents.messages import Message
from moorline_agents.run import RunContext
from moorline_agents.seen import said_since
from moorline_agents.summary import Past, summed_up
from moorline_agents.tokens import tokens_of_text, tokens_of_tools
from moorline_agents.toolbox import Schema, Toolbox
from moorline_agents.unfinished import unfinished_note
from moorline_agents.window import Window, window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent

_AROUND = 16  # tokens of the system message besides its text, and of the tags around a summary

LEAST = 256
"""Tokens that the history has in any case, however much the instructions and the tools take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around the history in the requests of one step."""

    instructions: str
    unfinished: str
    """What the agent did for a message that failed; not in the history, because the turn of that message says it."""
    tools: Sequence[Schema]
    """The `tools` of the requests."""
    room: int
    """Tokens that a request has for what is past and for the history."""

    def window(self, history: Sequence[Message], past: Past) -> Window:
        """What a model is shown of the history, as long as it has room."""
        room = max(self.room - tokens_of_text(summed_up(past, self.room)), LEAST // 2)
        return window(history, min(room, past.get("most", room)))

    def messages(self, shown: Window, past: Past) -> list[Message]:
        """The messages of a request."""
        messages = [*shown.messages]
        if self.unfinished:
            last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
            messages[last : last + 1] = [told_first(message, self.unfinished) for message in messages[last : last + 1]]
        if summary := summed_up(past, self.room):
            messages[:1] = [told_first(message, summary) for message in messages[:1]]
        return [{"role": "system", "content": self.instructions}, *map(briefed, messages)]


class Prompt:
    """The instructions and the briefings of an agent, and the window of its history."""

    def __init__(self, agent: Agent, *, tools: Toolbox, tokens: int) -> None:
        """A request has these `tools`, and may have so many `tokens`."""
        self._instructions = agent.instructions
        self._briefing = agent.briefing
        self._names = (agent.name, *agent.aliases)
        self._sees_others = agent.sees == "conversation"
        self._own_tools = frozenset(tool.name for tool in agent.own_tools)
        self._toolbox = tools
        self._tokens = tokens
        self._measured: tuple[Sequence[Schema], int] = ((), 0)

    async def asked(self, texts: Sequence[str], context: RunContext) -> tuple[Message, ...]:
        """The person's messages as the agent's history keeps them, when its part of the turn begins."""
        handed, context.progress.handed_over = context.progress.handed_over, None
        asked = tuple(map(said, texts))
        seen = await said_since(self._names, context.conversation) if self._sees_others else ""
        return await self.brief(asked, context, seen, of_hand_over(handed))

    async def brief(self, messages: tuple[Message, ...], context: RunContext, *told: str) -> tuple[Message, ...]:
        """The messages, the first of them with what the agent is told now."""
        briefing: str | Awaitable[str] = ""
        if self._briefing is not None:
            briefing = self._briefing(replace(context.tools, agent=self._names[0]))
        now = briefing if isinstance(briefing, str) else await briefing
        parts = [part for part in (*told, now) if part]
        if not parts or not messages:
            return messages
        return ({**messages[0], "briefing": "\n\n".join(parts)}, *messages[1:])

    async def frame(self, context: RunContext) -> Frame:
        """What stands around the history in this step."""
        told = self._instructions if isinstance(self._instructions, str) else self._instructions(context.tools)
        unfinished = unfinished_note(context.unfinished, names=self._names, tools=self._own_tools)
        tools = await self._toolbox.schemas()
        if tools is not self._measured[0]:
            self._measured = tools, tokens_of_tools(tools)
        room = self._tokens - self._measured[1] - tokens_of_text(told) - tokens_of_text(unfinished) - _AROUND
        return Frame(instructions=told, unfinished=unfinished, tools=tools, room=max(room, LEAST))
