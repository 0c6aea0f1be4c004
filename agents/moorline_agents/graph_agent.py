"""Any LangGraph graph over messages as an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langgraph.graph import END, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from moorline_agents import control
from moorline_agents.run import AgentDeps, AgentHost, Outcome, RunContext, TurnInput

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from moorline_migrations.components import Migrations


@dataclass(frozen=True, kw_only=True)
class GraphAgent:
    """A compiled LangGraph graph whose state has LangChain `messages`, as an agent of a manager.

    The person's message is appended to its `messages`, and the last of these is its answer. Its state is kept under its
    own name; a checkpointer that it was compiled with is not used. It finds a `RunContext` in LangGraph's runtime
    context, and may `interrupt` to ask: the answer comes as a `Resume`. `migrations` are like those of an `Agent`.
    """

    name: str
    description: str
    graph: CompiledStateGraph[Any, Any, Any, Any]
    session_ttl: int | None = None
    keeps_session: bool = True
    migrations: Migrations | None = None

    def __post_init__(self) -> None:
        control.check_name(self.name)
        if "messages" not in self.graph.channels:
            raise ValueError(f"Agent {self.name}: its graph needs `messages` in its state, like MessagesState.")

    @property
    def aliases(self) -> tuple[str, ...]:
        """Always empty: what a graph remembers is kept under its name."""
        return ()

    @property
    def entry(self) -> str:
        """The node at which the agent's part of a turn begins."""
        return self.name

    def add_to(self, graph: StateGraph[Any, Any, Any, Any], deps: AgentDeps, host: AgentHost) -> None:  # noqa: ARG002  # as Agent's
        """Adds the graph as a node, a subgraph that keeps its state in a namespace of its own."""
        own = self.graph.copy({"checkpointer": True, "name": self.name})

        async def run(state: TurnInput, *, runtime: Runtime[RunContext]) -> Command[str]:
            context = runtime.context
            context.progress.agent = self.name
            await host.enter(context)
            messages = [("user", text) for text in state.get("texts", ())]
            inside = replace(context, tools=replace(context.tools, agent=self.name))
            output = await own.ainvoke({"messages": messages}, context=inside, version="v2")
            return Command(goto=await host.leave(Outcome(text=_last_text(output.value)), context))

        graph.add_node(self.name, run, input_schema=TurnInput, destinations=(END,))


def _last_text(state: Any) -> str:
    """The text of the last message in the graph's state, whatever type its schema gives messages."""
    messages = state["messages"] if isinstance(state, Mapping) else state.messages
    return str(messages[-1].text)
