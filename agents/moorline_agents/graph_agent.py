"""Any LangGraph graph over messages as an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorline_agents import control
from moorline_agents.agent import AgentDeps, Outcome

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from moorline_migrations.components import Migrations


@dataclass(frozen=True, kw_only=True)
class GraphAgent:
    """A compiled LangGraph graph whose state has LangChain `messages`, as an agent of a manager.

    It gets the person's message appended to its `messages` and answers with the last of them. Its state is kept
    under its own name; a checkpointer it was compiled with is not used. It reads `RunContext` from the runtime's
    context, and may `interrupt` to ask: the answer comes as a `Resume`. `migrations` as an `Agent`'s.
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

    def compile(self, deps: AgentDeps) -> CompiledStateGraph[Any, Any, Any, Any]:  # noqa: ARG002  # as Agent's
        """The graph, keeping its state in the saver of the graph that calls it."""
        return self.graph.copy({"checkpointer": True, "name": self.name})

    def input(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the graph is called with for the messages of one turn."""
        return {"messages": [("user", text) for text in texts]}

    def outcome(self, state: Any) -> Outcome:
        """The text of the last message in the graph's state, which is of the type that its schema makes."""
        messages = state["messages"] if isinstance(state, Mapping) else state.messages
        return Outcome(text=str(messages[-1].text))
