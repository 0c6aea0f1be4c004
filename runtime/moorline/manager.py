"""The manager graph: START → route → <agent> → END.

`route` reads the lock through the checkpointer and hands the message to the agent that holds the session, without
asking a model. Each agent is a subgraph with its own state under its own namespace; its node keeps the lock in
step with what the agent's part of the turn came to.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

from langgraph.channels import UntrackedValue
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from moorline.router import Router
from moorline_agents.agent import AgentDeps, AgentInfo, Outcome, RunContext
from moorline_agents.control import ROUTE
from moorline_agents.errors import AgentError
from moorline_agents.messages import Usage
from moorline_checkpoint.saver import DeviceCheckpointer

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from moorline_migrations.components import Migrations

logger = logging.getLogger("moorline.manager")

MAX_HANDOFFS = 5
"""Of one message; agents that keep handing it round would never answer it."""


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
    def migrations(self) -> Migrations | None: ...
    def compile(self, deps: AgentDeps) -> CompiledStateGraph[Any, Any, Any, Any]: ...
    def input(self, texts: Sequence[str]) -> dict[str, Any]: ...
    def outcome(self, state: Any) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a turn has come to so far."""

    agent: str | None = None
    reply: str = ""
    handoffs: tuple[str, ...] = ()
    usage: Usage = Usage()


class TurnState(TypedDict, total=False):
    """One turn of the manager. The texts are kept while an interrupt waits, the progress never."""

    texts: list[str]
    progress: Annotated[Progress, UntrackedValue]


def turn_input(texts: Sequence[str]) -> TurnState:
    """What the manager graph is called with for the messages of one turn."""
    return {"texts": list(texts)}


@dataclass(frozen=True, kw_only=True)
class StartOver:
    """The words with which a person starts over, and what they are told."""

    words: frozenset[str]
    reply: str = "All right, let's start over. What can I do for you?"

    def meant_by(self, text: str) -> bool:
        return text.strip().strip(".!").casefold() in self.words


class Node(Protocol):
    """A node of the manager graph."""

    def __call__(self, state: TurnState, *, runtime: Runtime[RunContext]) -> Awaitable[Command[str]]: ...


class Manager:
    """Routes, hands over and keeps the lock; compiled once for all devices."""

    def __init__(
        self,
        *,
        agents: Sequence[AgentProtocol],
        saver: DeviceCheckpointer,
        deps: AgentDeps,
        start_over: StartOver,
    ) -> None:
        self._agents: Mapping[str, AgentProtocol] = {agent.name: agent for agent in agents}
        if len(self._agents) != len(agents) or not agents:
            raise ValueError("A manager needs at least one agent, and every agent a name of its own.")
        infos = tuple(AgentInfo(name=agent.name, description=agent.description) for agent in agents)
        fallback = next((agent.name for agent in agents if not agent.keeps_session), agents[0].name)
        self._saver = saver
        self._deps = AgentDeps(model=deps.model, others=infos, tool_rounds=deps.tool_rounds)
        self._router = Router(model=deps.model, agents=infos, fallback=fallback)
        self._start_over = start_over

    def compile(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The manager graph on the saver."""
        graph = StateGraph(TurnState, context_schema=RunContext)
        graph.add_node(ROUTE, self._route, destinations=(*self._agents, END))
        for agent in self._agents.values():
            graph.add_node(agent.name, self._node(agent), destinations=(*self._agents, END))
        graph.add_edge(START, ROUTE)
        return graph.compile(checkpointer=self._saver, name="manager")

    async def _route(self, state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
        device_id = runtime.context.tools.device_id
        if any(map(self._start_over.meant_by, state["texts"])):
            await self._saver.clear_session_lock(device_id)
            return Command(goto=END, update={"progress": Progress(reply=self._start_over.reply)})
        # A turn that ran before goes the way it went then: since, the session may have changed hands.
        holder = runtime.context.journal.begins_with() or await self._saver.get_session_lock(device_id)
        if holder is not None and holder in self._agents:
            return Command(goto=holder)
        if holder not in (None, ROUTE):
            whose = self._saver.database.tags.of(device_id)
            logger.warning("Agent %s, which holds %s, is gone; routing anew.", holder, whose)
        picked, usage = await self._router.pick(state["texts"][-1], runtime.context.journal)
        return Command(goto=picked, update={"progress": Progress(usage=usage)})

    def _node(self, agent: AgentProtocol) -> Node:
        graph = agent.compile(self._deps)

        async def answer(state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
            device_id = runtime.context.tools.device_id
            if agent.keeps_session:
                # Before it runs: an agent that stops to ask holds the session while it waits.
                await self._saver.set_session_lock(device_id, agent.name, ttl=agent.session_ttl)
            tools = replace(runtime.context.tools, agent=agent.name)
            context = replace(runtime.context, tools=tools)
            run = await graph.ainvoke(agent.input(state["texts"]), context=context, version="v2")
            outcome = agent.outcome(run.value)
            if agent.keeps_session and (outcome.released or outcome.handoff):
                await self._saver.clear_session_lock(device_id)
            before = state.get("progress", Progress())
            progress = replace(before, usage=before.usage + outcome.usage)
            if outcome.handoff is None:
                progress = replace(progress, agent=agent.name, reply=outcome.text)
                return Command(goto=END, update={"progress": progress})
            handoffs = (*before.handoffs, outcome.handoff)
            if len(handoffs) > MAX_HANDOFFS:
                raise AgentError(
                    f"The message was handed over {MAX_HANDOFFS} times ({', '.join(handoffs)}) and nobody answered. "
                    "Make the agents' descriptions tell their jobs apart."
                )
            return Command(goto=outcome.handoff, update={"progress": replace(progress, handoffs=handoffs)})

        return answer
