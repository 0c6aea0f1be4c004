"""The manager graph: START → route → <agent> → END.

`route` reads the lock through the checkpointer and hands the message to the agent that holds the session, without
asking a model. An agent's nodes are part of this graph, with a history that only they see; a `GraphAgent` is one node
with its own graph inside. When an agent's part of the turn begins and ends, the lock follows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from moorline.lifetime import lifetime_of
from moorline.router import Router, Routing
from moorline.texts import Texts
from moorline_agents.control import ROUTE
from moorline_agents.errors import AgentError
from moorline_agents.run import (
    AgentDeps,
    AgentHost,
    AgentInfo,
    HandedOver,
    Next,
    Outcome,
    Progress,
    RunContext,
    TurnState,
)
from moorline_agents.stopping import Stopped
from moorline_agents.telling import Why
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.store.base import BaseStore

    from moorline_checkpoint.turn import OpenTurn
    from moorline_migrations.components import Migrations

logger = logging.getLogger("moorline.manager")

MAX_HANDOFFS = 5
"""Hand-overs allowed for one message; agents that keep passing it around would never answer it."""


class AgentProtocol(Protocol):
    """What the manager needs of an agent; `Agent` and `GraphAgent` fit."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def session_ttl(self) -> int | None: ...
    @property
    def keeps_session(self) -> bool: ...
    @property
    def routable(self) -> bool: ...
    @property
    def hands_over(self) -> bool: ...
    @property
    def migrations(self) -> Migrations | None: ...
    @property
    def aliases(self) -> Sequence[str]: ...
    @property
    def entry(self) -> str: ...
    @property
    def state_types(self) -> frozenset[tuple[str, str]]: ...
    def add_to(self, graph: StateGraph[Any, Any, Any, Any], deps: AgentDeps, host: AgentHost) -> None: ...


@dataclass(frozen=True, kw_only=True)
class StartOver:
    """The words with which a person starts over, and the reply to them.

    The lock is cleared then, and the manager graph runs from nothing (see `execution`), so that no agent is shown what
    was said before.
    """

    words: frozenset[str]
    reply: str = Texts.start_over

    def meant_by(self, text: str) -> bool:
        return text.strip().strip(".!").casefold() in self.words

    def in_any(self, texts: Sequence[str]) -> bool:
        return any(map(self.meant_by, texts))


def require_agents(agents: Sequence[AgentProtocol]) -> None:
    """Raises `TypeError` or `ValueError` if these agents cannot be those of a manager."""
    for agent in agents:
        if not hasattr(agent, "add_to"):
            raise TypeError(f"agents must be a list of Agent and GraphAgent; {type(agent).__name__} is neither.")
    taken = Counter(name for agent in agents for name in _names(agent))
    if twice := [name for name, count in taken.items() if count > 1]:
        raise ValueError(f"Names and aliases of agents must differ; {', '.join(twice)} is used more than once.")
    if not any(agent.routable for agent in agents):
        raise ValueError("There must be at least one agent that is routable, to answer a person's first message.")


def _names(agent: AgentProtocol) -> tuple[str, ...]:
    return (*agent.aliases, agent.name)


class Manager:
    """Routes, hands over and keeps the lock; compiled once for all devices."""

    def __init__(
        self,
        *,
        agents: Sequence[AgentProtocol],
        saver: DeviceCheckpointer,
        deps: AgentDeps,
        start_over: StartOver,
        router: Router = Router(),  # noqa: B008 - frozen
    ) -> None:
        self._agents: Mapping[str, AgentProtocol] = {agent.name: agent for agent in agents}
        self._current = {name: agent.name for agent in agents for name in _names(agent)}
        self._entries = {name: self._agents[current].entry for name, current in self._current.items()}
        routable = [agent for agent in agents if agent.routable]
        fallback = next((agent.name for agent in routable if not agent.keeps_session), routable[0].name)
        self._saver = saver
        self._deps = replace(deps, others=tuple(map(_info, agents)))
        self._routing = Routing(
            router,
            model=deps.model,
            agents=list(map(_info, routable)),
            holders=frozenset(name for name, own in self._current.items() if self._agents[own].keeps_session),
            fallback=fallback,
        )
        self._start_over = start_over

    def compile(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The manager graph, compiled with the saver."""
        graph = StateGraph(TurnState, context_schema=RunContext)
        graph.add_node(ROUTE, self._route, destinations=(*(agent.entry for agent in self._agents.values()), END))
        for agent in self._agents.values():
            agent.add_to(graph, self._deps, _Host(agent=agent, entries=self._entries, saver=self._saver))
        graph.add_edge(START, ROUTE)
        wanted = {key for agent in self._agents.values() for key in agent.state_types}
        saver = self._saver.with_allowlist(wanted) if wanted else self._saver
        return graph.compile(checkpointer=saver, name="manager")

    def memory(self, turn: OpenTurn, agent: str) -> BaseStore:
        """The facts that an agent keeps of the person whose turn it is."""
        return self._saver.memory(turn, agent, *self._agents[agent].aliases)

    async def _route(self, state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
        context = runtime.context
        device_id = context.tools.device_id
        texts, update = state["texts"], {}
        context.progress.answered_by = state.get("answered_by")
        if self._start_over.in_any(texts):
            if await self._saver.clear_session_lock(device_id, why="started_over"):
                context.telling.session_changed(None, "started_over")
            # What else was said in the same burst is answered.
            texts = [text for text in texts if not self._start_over.meant_by(text)]
            update = {"texts": texts, "begun": []}
            if not texts:
                context.progress.reply = self._start_over.reply
        if not texts:
            return Command(goto=END, update=update)
        if context.stop.requested and not context.journal.rerunning:
            return self._stopped(context, update)
        # A rerun takes the same way as the first run, even if the session has changed hands since.
        holder = context.journal.begins_with() or await self._saver.get_session_lock(device_id)
        if holder is not None and holder in self._entries:
            return Command(goto=self._entries[holder], update=update)
        if holder not in (None, ROUTE):
            whose = self._saver.database.tags.of(device_id)
            logger.warning("Agent %s, which holds %s, no longer exists; routing anew.", one_line(holder), whose)
        if holder is None and (first := self._asked_first(context.progress.answered_by)) is not None:
            return Command(goto=first, update=update)
        try:
            picked = await self._routing.pick(texts, context)
        except Stopped:
            return self._stopped(context, update)
        return Command(goto=self._entries[picked], update=update)

    def _asked_first(self, answered_by: str | None) -> str | None:
        """Where the agent begins that answered last, if it keeps no session and is still there. It is asked without
        being picked, as it hands over what is not its job: small talk needs one model call a message."""
        agent = self._agents.get(self._current.get(answered_by or "", ""))
        return agent.entry if agent is not None and _may_be_asked_first(agent) else None

    def _stopped(self, context: RunContext, update: dict[str, Any]) -> Command[str]:
        """No agent learns of a message that was stopped before one began."""
        context.progress.reply = context.stop.text
        return Command(goto=END, update=update)


@dataclass(frozen=True, kw_only=True)
class _Host:
    """Sets and clears the lock as an agent's part of the turn begins and ends."""

    agent: AgentProtocol
    entries: Mapping[str, str]
    """Where the part of each agent begins, by its name and its earlier names."""
    saver: DeviceCheckpointer

    @property
    def handoffs(self) -> Sequence[str]:
        return [entry for entry in dict.fromkeys((*self.entries.values(), ROUTE)) if entry != self.agent.entry]

    async def enter(self, context: RunContext) -> None:
        context.tracing.enter(self.agent.name)
        if self.agent.keeps_session:
            device_id = context.tools.device_id
            holder = await self.saver.get_session_lock(device_id)
            # The lock is set before the agent runs: one that stops to ask holds the session while it waits.
            ttl, until = lifetime_of(context.tools.values, now=context.tools.now)
            await self.saver.set_session_lock(
                device_id, self.agent.name, ttl=ttl, until=until, agent_ttl=self.agent.session_ttl
            )
            if holder != self.agent.name:
                context.telling.session_changed(self.agent.name, "taken")

    async def leave(self, outcome: Outcome, context: RunContext) -> Next:
        context.tracing.leave()
        progress = context.progress
        if outcome.handoff:
            context.telling.handed_over(outcome.handoff, outcome.reason)
        told = {"by": self.agent.name, "reason": outcome.reason, "note": outcome.note}
        if self.agent.keeps_session and (outcome.released or outcome.handoff):
            why: Why = "handed_over" if outcome.handoff else "released"
            if await self.saver.clear_session_lock(context.tools.device_id, why=why, **told):
                context.telling.session_changed(None, why)
        elif outcome.handoff:
            self.saver.record_hand_over(context.tools.device_id, **told)
        if outcome.handoff is None:
            progress.reply = outcome.text
            return Next(END, self._remembered(progress))
        progress.handoffs = (*progress.handoffs, outcome.handoff)
        progress.handed_over = HandedOver(by=self.agent.name, reason=outcome.reason, note=outcome.note)
        if len(progress.handoffs) > MAX_HANDOFFS:
            raise AgentError(
                f"The message was handed over {MAX_HANDOFFS} times ({', '.join(progress.handoffs)}) and nobody "
                "answered. Describe the agents so that it is clear which job is whose."
            )
        # One that has left the app since the hand-over, while a question waited, cannot answer any more.
        return Next(self.entries.get(outcome.handoff, ROUTE))

    def _remembered(self, progress: Progress) -> dict[str, Any]:
        """That the agent answered, if the next message is for it; nothing if that is known."""
        answered_by = self.agent.name if _may_be_asked_first(self.agent) else None
        return {} if answered_by == progress.answered_by else {"answered_by": answered_by}


def _may_be_asked_first(agent: AgentProtocol) -> bool:
    """One whose answers have a form has none for small talk."""
    return agent.routable and agent.hands_over and not agent.keeps_session and getattr(agent, "output", None) is None


def _info(agent: AgentProtocol) -> AgentInfo:
    return AgentInfo(name=agent.name, description=agent.description)
