"""A reference implementation to compare with, not to be used: the manager as it was when each agent was a graph of its
own, run inside of a node of the manager's. Nobody starts over here.

It runs on the real runtime and differs from it only in the graph. What an agent's steps are made of (asking the
model, looking up a tool) is the kit's; which node does what, what is state and where it is kept is this module's.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict, cast

from langgraph.channels import UntrackedValue
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from moorline.manager import MAX_HANDOFFS, AgentProtocol, Manager
from moorline_agents import control
from moorline_agents.agent import Agent
from moorline_agents.briefing import block, of_hand_over
from moorline_agents.control import ROUTE
from moorline_agents.errors import AgentError
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.history import SNAPSHOT_UPDATES, closing, extend_history, open_calls
from moorline_agents.loop import Loop
from moorline_agents.messages import Message
from moorline_agents.run import AgentDeps, AgentHost, HandedOver, Outcome, RunContext
from moorline_checkpoint.turn import OpenTurn, open_turn

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """The outcome of a turn so far."""

    agent: str | None = None
    reply: str = ""
    handoffs: tuple[str, ...] = ()


class TurnState(TypedDict, total=False):
    """One turn of the manager. The texts are kept while an interrupt waits, the rest never."""

    texts: list[str]
    so_far: Annotated[SoFar, UntrackedValue]


@dataclass(frozen=True, kw_only=True)
class AgentTurn:
    """An agent's part of a turn so far."""

    texts: tuple[str, ...] = ()
    """The person's messages, until they are in the history."""
    handoff: str | None = None
    reason: str = ""
    released: bool = False


class AgentState(TypedDict, total=False):
    """An agent's own state under its own namespace: the history is kept from turn to turn, the part is one turn's."""

    history: Annotated[list[Message], DeltaChannel(extend_history, snapshot_frequency=SNAPSHOT_UPDATES)]
    turn: Annotated[AgentTurn, UntrackedValue]


class AgentLoop(Loop):
    """The two nodes of the graph of an agent of the kit."""

    def __init__(self, *, agent: Agent, deps: AgentDeps) -> None:
        super().__init__(agent=agent, deps=deps, host=cast("AgentHost", None))

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        graph = StateGraph(AgentState, context_schema=RunContext)
        graph.add_node("think", self.ask_model, destinations=("act", END))
        graph.add_node("act", self.call_tools, destinations=("think", END))
        graph.add_edge(START, "think")
        return graph.compile(checkpointer=True, name=self._agent.name)

    async def ask_model(self, state: AgentState, runtime: Runtime[RunContext]) -> Command[str]:
        turn = state.get("turn", AgentTurn())
        known = state.get("history", ())
        said: tuple[Message, ...] = ()
        if turn.texts:
            said = (*closing(open_calls(known)), *await self._prompt.asked(turn.texts, runtime.context))
            runtime.context.progress.rounds = 0
        answer, _ = await self._answering.answer(
            [*known, *said], {}, await self._prompt.frame(runtime.context), runtime.context
        )
        released = self._ended([*known, *said])
        update = {
            "history": (*said, answer),
            "turn": replace(turn, texts=(), released=released),
        }
        return Command(goto="act" if answer.get("tool_calls") else END, update=update)

    async def call_tools(self, state: AgentState, runtime: Runtime[RunContext]) -> Command[str]:
        history = state["history"]
        call, *more = open_calls(history)
        content = json.dumps(await self._calling.result(call, history, runtime.context), ensure_ascii=False)
        done: Message = {"role": "tool", "tool_call_id": call["id"], "content": content}
        if more:
            return Command(goto="act", update={"history": (done,)})
        handover = control.handed_over([*history, done])
        handoff = handover and handover.to
        reason = "" if handover is None else handover.reason
        turn = replace(state.get("turn", AgentTurn()), handoff=handoff, reason=reason, released=self._ended(history))
        return Command(goto=END if handoff else "think", update={"history": (done,), "turn": turn})


class Subgraph(Protocol):
    """How the manager runs an agent."""

    graph: CompiledStateGraph[Any, Any, Any, Any]

    def input(self, texts: Sequence[str], context: RunContext) -> dict[str, Any]: ...
    def outcome(self, state: Any) -> Outcome: ...


class KitSubgraph:
    """An agent of the kit."""

    def __init__(self, agent: Agent, deps: AgentDeps) -> None:
        self.graph = AgentLoop(agent=agent, deps=deps).graph()

    def input(self, texts: Sequence[str], context: RunContext) -> dict[str, Any]:  # noqa: ARG002 - as the protocol
        return {"turn": AgentTurn(texts=tuple(texts))}

    def outcome(self, state: Any) -> Outcome:
        last, turn = state["history"][-1], state["turn"]
        return Outcome(
            text=last["content"] or "" if last["role"] == "assistant" else "",
            handoff=turn.handoff,
            reason=turn.reason,
            released=turn.released,
        )


class OtherSubgraph:
    """Any other LangGraph graph."""

    def __init__(self, agent: GraphAgent) -> None:
        self.graph = agent.graph.copy({"checkpointer": True, "name": agent.name})

    def input(self, texts: Sequence[str], context: RunContext) -> dict[str, Any]:
        told = of_hand_over(context.progress.handed_over)
        context.progress.handed_over = None
        briefing = [("user", block(told))] if told else []
        return {"messages": [*briefing, *(("user", text) for text in texts)]}

    def outcome(self, state: Any) -> Outcome:
        messages = state["messages"] if isinstance(state, Mapping) else state.messages
        return Outcome(text=str(messages[-1].text))


class Node(Protocol):
    def __call__(self, state: TurnState, *, runtime: Runtime[RunContext]) -> Awaitable[Command[str]]: ...


class ReferenceManager(Manager):
    """Takes what the manager takes, and makes the graph of before."""

    def compile(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        graph = StateGraph(TurnState, context_schema=RunContext)
        graph.add_node(ROUTE, self._routed, destinations=(*self._agents, END))
        for agent in self._agents.values():
            graph.add_node(agent.name, self._node(agent), destinations=(*self._agents, END))
        graph.add_edge(START, ROUTE)
        compiled = graph.compile(checkpointer=self._saver, name="manager")
        return cast("CompiledStateGraph[Any, Any, Any, Any]", ReferenceGraph(compiled))

    async def _routed(self, state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
        device_id = runtime.context.tools.device_id
        holder = runtime.context.journal.begins_with() or await self._saver.get_session_lock(device_id)
        if holder is not None and holder in self._agents:
            return Command(goto=holder)
        return Command(goto=await self._routing.pick(state["texts"], runtime.context))

    def _node(self, agent: AgentProtocol) -> Node:
        subgraph: Subgraph
        if isinstance(agent, Agent):
            subgraph = KitSubgraph(agent, self._deps)
        elif isinstance(agent, GraphAgent):
            subgraph = OtherSubgraph(agent)
        else:
            raise TypeError(f"the reference knows no {type(agent).__name__}")
        graph = subgraph.graph

        async def answer(state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
            device_id = runtime.context.tools.device_id
            if agent.keeps_session:
                await self._saver.set_session_lock(device_id, agent.name, ttl=agent.session_ttl)
            inside = replace(runtime.context, tools=replace(runtime.context.tools, agent=agent.name))
            run = await graph.ainvoke(subgraph.input(state["texts"], inside), context=inside, version="v2")
            outcome = subgraph.outcome(run.value)
            if agent.keeps_session and (outcome.released or outcome.handoff):
                await self._saver.clear_session_lock(device_id)
            before = state.get("so_far", SoFar())
            if outcome.handoff is None:
                so_far = replace(before, agent=agent.name, reply=outcome.text)
                return Command(goto=END, update={"so_far": so_far})
            handed = HandedOver(by=agent.name, reason=outcome.reason, note=outcome.note)
            runtime.context.progress.handed_over = handed
            handoffs = (*before.handoffs, outcome.handoff)
            if len(handoffs) > MAX_HANDOFFS:
                raise AgentError(f"handed over {MAX_HANDOFFS} times")
            goto = outcome.handoff if outcome.handoff in self._agents else ROUTE
            return Command(goto=goto, update={"so_far": replace(before, handoffs=handoffs)})

        return answer


class ReferenceGraph:
    """The graph of before as turns are executed on it: its progress is state, and its own namespace goes with every
    turn that does not wait for an answer."""

    def __init__(self, graph: CompiledStateGraph[Any, Any, Any, Any]) -> None:
        self._graph = graph
        self.aget_state, self.aupdate_state = graph.aget_state, graph.aupdate_state

    async def ainvoke(self, given: Any, config: RunnableConfig, *, context: RunContext, **options: Any) -> Any:
        output = await self._graph.ainvoke(given, config, context=context, **{**options, "output_keys": ["so_far"]})
        so_far, progress = output.value.get("so_far", SoFar()), context.progress
        progress.agent, progress.reply = so_far.agent, so_far.reply
        progress.handoffs = so_far.handoffs
        turn = open_turn(config["configurable"]["thread_id"])
        if turn is not None and not output.interrupts:
            _forget_manager(turn)
        return output


def _forget_manager(turn: OpenTurn) -> None:
    turn.heads.pop("", None)
    turn.checkpoints = {key: row for key, row in turn.checkpoints.items() if key[0]}
    turn.channel_values = {key: row for key, row in turn.channel_values.items() if key[0]}
    turn.writes = {key: rows for key, rows in turn.writes.items() if key[0]}
