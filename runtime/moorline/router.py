"""Routing: which agent is to answer a device that no agent holds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from moorline_agents.asking import ask
from moorline_agents.calls import checked
from moorline_agents.control import ROUTE, named_agent, route_schema
from moorline_agents.conversation import PastTurn
from moorline_agents.files import files_of, words
from moorline_agents.messages import Message
from moorline_agents.model import Model, require_model
from moorline_agents.model_errors import ContextOverflow
from moorline_agents.run import AgentInfo, RunContext
from moorline_agents.window import clipped

logger = logging.getLogger("moorline.router")

INSTRUCTIONS = "You route a person's message to the agent that shall answer it. Call the tool `route`; do not answer."

LONGEST = 4_000
"""Characters of what is said now that the router model is shown; of more its beginning and its end."""

LONGEST_PAST = 500
"""The same for what was said before."""

MOST_HISTORY = 100


@dataclass(frozen=True, kw_only=True)
class Router:
    """How an agent is picked for a message of a device that no agent holds: a model is asked, and called with the tool
    `route`.

    It is shown the last `history` messages (0 to 100) of the person and the agents, and which agent held the session
    last, besides the message itself. `model` replaces the runtime's. Raises `ValueError` for a history, and `TypeError`
    for a model, that cannot be.
    """

    history: int = 6
    instructions: str = INSTRUCTIONS
    model: Model | None = None

    def __post_init__(self) -> None:
        if isinstance(self.history, bool) or not isinstance(self.history, int) or not 0 <= self.history <= MOST_HISTORY:
            raise ValueError(f"Router: history must be a whole number from 0 to {MOST_HISTORY}, not {self.history!r}.")
        if self.model is not None:
            require_model(self.model, "Router: model")


class Routing:
    """Asks a model to pick one of the agents. If it names none of them, or has no room even for one message, the
    fallback agent answers."""

    def __init__(
        self, router: Router, *, model: Model, agents: Sequence[AgentInfo], holders: frozenset[str], fallback: str
    ) -> None:
        """`holders` are the names of the agents that keep sessions."""
        self._router = router
        self._model = router.model or model
        self._names = frozenset(agent.name for agent in agents)
        self._schema = route_schema({agent.name: agent.description for agent in agents})
        self._holders = holders
        self._fallback = fallback

    async def pick(self, texts: Sequence[str], context: RunContext) -> str:
        """The agent's name. No model is asked if there is only one agent. Raises `Stopped` if the turn is stopped."""
        if len(self._names) == 1:
            return self._fallback
        recalled = context.journal.recall(ROUTE)
        if recalled is not None:
            return self._named(recalled)
        history = self._router.history
        past = await context.conversation.last(-(-history // 2)) if history else ()
        for shown in (past, ()) if past else ((),):
            try:
                answer = await ask(
                    self._model,
                    self._messages(texts, shown),
                    context=context,
                    agent=ROUTE,
                    tools=[self._schema],
                    tool_choice={"type": "function", "function": {"name": ROUTE}},
                    shown=False,
                )
            except ContextOverflow:
                continue
            message = checked(answer.message)
            context.journal.note(ROUTE, message)
            return self._named(message)
        logger.warning("The router model has no room for a message of %s characters.", sum(map(len, texts)))
        return self._fallback

    def _messages(self, texts: Sequence[str], past: Sequence[PastTurn]) -> list[Message]:
        held = next((turn.agent for turn in reversed(past) if turn.agent in self._holders), None)
        instructions = self._router.instructions
        if held is not None:
            instructions += f"\n\nThe agent that held the session last is {held}."
        # A conversation begins with the person, or some servers refuse it.
        said = dropwhile(lambda message: message["role"] != "user", [*_said(past)][-self._router.history :])
        said_now = "\n".join(words(text, files_of(text)) for text in texts)
        asked = Message(role="user", content=clipped(said_now, LONGEST))
        return [{"role": "system", "content": instructions}, *said, asked]

    def _named(self, answer: Message) -> str:
        for call in answer.get("tool_calls", ()):
            name = named_agent(call["function"]["arguments"])
            if name in self._names:
                return name
        logger.warning("The router model named no known agent; %s answers.", self._fallback)
        return self._fallback


def _said(past: Sequence[PastTurn]) -> Iterator[Message]:
    for turn in past:
        for text in turn.texts:
            said = clipped(text, LONGEST_PAST)
            yield {"role": "user", "content": said if turn.by is None else f"[{turn.by}] {said}"}
        reply = clipped(turn.reply, LONGEST_PAST)
        yield {"role": "assistant", "content": reply if turn.agent is None else f"[{turn.agent}] {reply}"}
