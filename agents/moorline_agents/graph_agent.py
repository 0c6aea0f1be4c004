"""Any LangGraph graph over messages as an agent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import HumanMessage
from langgraph.graph import END, StateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite

from moorline_agents import control
from moorline_agents.briefing import BRIEFING_ID, block, of_hand_over
from moorline_agents.graph_files import asked
from moorline_agents.graph_listener import Listener
from moorline_agents.graph_part import Part
from moorline_agents.graph_run import GraphRun
from moorline_agents.graph_types import state_types
from moorline_agents.run import AgentDeps, AgentHost, RunContext, TurnState

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from moorline_migrations.components import Migrations


@dataclass(frozen=True, kw_only=True)
class GraphAgent:
    """A compiled LangGraph graph whose state has LangChain `messages`, as an agent of a manager.

    The person's message is appended to its `messages`, and the last of these is its answer; text is shown while the
    graph's models write it. Files that came with the message are LangChain's content blocks of it while the graph runs,
    and words in what is stored. What an agent says of its hand-over stands before the person's message, in a message of
    its own that begins with `<briefing>`. The graph's state is kept under its own name, with the types that its schemas
    name; a checkpointer that it was compiled with is not used. With `context_schema=RunContext` it finds one in
    LangGraph's runtime context. LangGraph's store (`runtime.store`) is the one that it was compiled with; otherwise it
    is the agent's memory of the person, like `ToolContext.memory`.

    It may ask: with `interrupt`, or by stopping at an `interrupt_before` or `interrupt_after`; the answer comes as a
    `Resume`, and lets it go on. What its models cost is counted if they say so: a `ChatOpenAI` with a base URL of its
    own asks its server for that only with `stream_usage=True`. It may hand over: with `handover_tools`, or with a
    `Command` to its parent graph that goes to another agent. `routable` and `migrations` are
    like those of an `Agent`.
    """

    name: str
    description: str
    graph: CompiledStateGraph[Any, Any, Any, Any]
    session_ttl: int | None = None
    keeps_session: bool = True
    routable: bool = True
    migrations: Migrations | None = None

    def __post_init__(self) -> None:
        control.check_name(self.name)
        control.check_ttl(self.name, self.session_ttl)
        if not isinstance(self.graph, Pregel):
            raise TypeError(f"Agent {self.name}: its graph must be a compiled LangGraph graph; pass `graph.compile()`.")
        if "messages" not in self.graph.channels:
            raise ValueError(f"Agent {self.name}: its graph needs `messages` in its state, like MessagesState.")

    @property
    def aliases(self) -> tuple[str, ...]:
        """Always empty: what a graph remembers is kept under its name."""
        return ()

    @property
    def hands_over(self) -> bool:
        """Always False: nobody knows whether the graph does."""
        return False

    @property
    def entry(self) -> str:
        """The node at which the agent's part of a turn begins."""
        return self.name

    @property
    def state_types(self) -> frozenset[tuple[str, str]]:
        """The types that its schemas name, by module and name; the checkpointer may rebuild them."""
        return state_types(self.graph)

    def add_to(self, graph: StateGraph[Any, Any, Any, Any], deps: AgentDeps, host: AgentHost) -> None:
        """Adds the graph as a node, a subgraph that keeps its state in a namespace of its own."""
        own = self.graph.copy({"checkpointer": True, "name": self.name})
        others = {other.name: other.description for other in deps.others if other.name != self.name}

        async def run(state: TurnState, *, runtime: Runtime[RunContext]) -> Command[str]:
            context = runtime.context
            context.progress.agent = self.name
            context.telling.agent_started(self.name)
            await host.enter(context)
            inside = replace(context, tools=replace(context.tools, agent=self.name, asks_again=True))
            run = GraphRun(own, inside, Part(agent=self.name, others=others, listener=Listener(context.telling)))
            texts, begun = state.get("texts", []), state.get("begun")
            anew = begun is not None and self.name not in begun
            handed, context.progress.handed_over = context.progress.handed_over, None
            told = _briefing(of_hand_over(handed))
            said = [*told, *await asked(texts, context.read_files)]
            # In place of all others: the first ones since the person started over.
            outcome = await run.outcome({"messages": Overwrite(said) if anew else said})
            update: dict[str, Any] = {"begun": [*(begun or ()), self.name]} if anew else {}
            if outcome.handoff and not texts:
                # A run that continues after an interrupt does not get the person's texts in its input.
                update["texts"] = run.last_texts()
            following = await host.leave(outcome, context)
            return Command(goto=following.node, update={**update, **following.update})

        graph.add_node(self.name, run, input_schema=TurnState, destinations=(END, *host.handoffs))


def _briefing(told: str) -> list[HumanMessage]:
    """A message of its own, so that the person's stays as it was written: graphs may read it."""
    return [HumanMessage(block(told), id=f"{BRIEFING_ID}{uuid4()}")] if told else []
