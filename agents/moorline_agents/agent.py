"""An agent: instructions, tools and a model, as two nodes of a LangGraph graph with a history of their own.

An agent changes the session through two control tools that the kit adds: `hand_over` and `end_session`. Setting and
clearing the lock is the manager's business; an agent only reports the outcome of its part of the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Checkpointer

from moorline_agents import control
from moorline_agents.checks import Check, validate_checks
from moorline_agents.loop import Loop
from moorline_agents.model import Model, require_model
from moorline_agents.model_options import ModelOptions
from moorline_agents.run import AgentDeps, AgentHost, Next, Outcome, RunContext, TurnInput
from moorline_agents.structured import answer_schema
from moorline_agents.tool_source import ToolSource
from moorline_agents.tools import Tool, ToolContext

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from pydantic import BaseModel

    from moorline_migrations.components import Migrations

Instructions = str | Callable[[ToolContext], str]
Briefing = Callable[[ToolContext], str | Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent of Moorline's own kit.

    `name` (1 to 50 letters, digits, `_`, `-`) is what the lock holds; the router and the other agents see
    `description`. `instructions` may depend on the turn, but servers cache what they have read of a conversation only
    while these stay the same: what changes, such as the time, is for `briefing`. It is called when the agent's part of
    a turn begins; what it returns is shown with the person's message, and kept with it. An agent that `sees` the
    conversation is also told there what the person and other agents have said since it last answered.

    With `keeps_session`, the agent takes the lock for `session_ttl` seconds after each activity, unless a call or the
    person's TTL says otherwise (None: as the row or the default says). One that is not `routable` answers only what
    others hand over to it. `migrations` make the tables that its tools use; `moorline migrate` runs them. `aliases` are
    earlier names of the agent: it answers for locks that hold them, and keeps what it knew under them.

    What no longer fits into a request is summed up: by the model `summary`, by the agent's own (None, unless a setting
    says otherwise), or not at all ("off").

    `temperature`, `max_tokens`, `reasoning_effort` and `extra_body` say how its model is asked, as `ModelOptions` does.
    If the model fails before any text was shown, and not over the request itself, the first of `fallbacks` is asked,
    then the next. What the person says has to pass `input_checks`, and what the model answers `output_checks`, in their
    order. With `output`, the model answers with an instance of that class, which is `Reply.output`; its output checks
    see the instance.
    Raises `ValueError` or `TypeError` for an agent that could never work.
    """

    name: str
    description: str
    instructions: Instructions
    briefing: Briefing | None = None
    tools: Sequence[Tool | ToolSource] = ()
    sees: Literal["own", "conversation"] = "own"
    model: Model | None = None
    session_ttl: int | None = None
    keeps_session: bool = True
    routable: bool = True
    summary: Model | Literal["off"] | None = None
    migrations: Migrations | None = None
    aliases: Sequence[str] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fallbacks: Sequence[Model] = ()
    input_checks: Sequence[Check] = ()
    output_checks: Sequence[Check] = ()
    output: type[BaseModel] | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            control.check_name(name)
        self._require_types()
        names = [tool.name for tool in self.own_tools] + list(control.NAMES)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"Agent {self.name}: the tool names {', '.join(twice)} are taken; rename them.")
        control.check_ttl(self.name, self.session_ttl)
        if self.sees not in ("own", "conversation"):
            raise ValueError(f"Agent {self.name}: sees must be own or conversation, not {self.sees!r}.")
        validate_checks((*self.input_checks, *self.output_checks), f"Agent {self.name}")
        try:
            _ = self.options
        except ValueError as error:
            raise ValueError(f"Agent {self.name}: {error}") from None

    def _require_types(self) -> None:
        """Raises `TypeError` for what is easily given in the place of something else, and would be found out late."""
        whose = f"Agent {self.name}"
        if isinstance(self.aliases, str):
            raise TypeError(f"{whose}: aliases must be a list of names, not a text.")
        if not isinstance(self.instructions, str) and not callable(self.instructions):
            raise TypeError(f"{whose}: instructions must be a text, or a function of a ToolContext that returns one.")
        if self.briefing is not None and not callable(self.briefing):
            raise TypeError(f"{whose}: briefing must be a function of a ToolContext; a fixed text is for instructions.")
        for given in self.tools:
            if not isinstance(given, Tool | ToolSource):
                name = getattr(given, "__name__", type(given).__name__)
                raise TypeError(f"{whose}: {name} is no tool. Decorate an async function with `@tool(…)`.")
        for model in (self.model, *self.fallbacks):
            if model is not None:
                require_model(model, f"{whose}: a model")
        if self.summary not in (None, "off"):
            require_model(self.summary, f'{whose}: summary, if it is not "off",')

    @property
    def own_tools(self) -> Sequence[Tool]:
        """Its tools but for those of sources, such as MCP servers, which are known once these run."""
        return [tool for tool in self.tools if isinstance(tool, Tool)]

    @property
    def options(self) -> ModelOptions:
        """How its model is asked."""
        return ModelOptions(
            schema=None if self.output is None else answer_schema(self.output),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            reasoning_effort=self.reasoning_effort,
            extra_body=self.extra_body,
        )

    @property
    def hands_over(self) -> bool:
        """Always True: its model has the tool for it."""
        return True

    @property
    def entry(self) -> str:
        """The node at which the agent's part of a turn begins."""
        return f"{self.name}.think"

    @property
    def state_types(self) -> frozenset[tuple[str, str]]:
        """None: what an agent remembers is plain data."""
        return frozenset()

    def add_to(self, graph: StateGraph[Any, Any, Any, Any], deps: AgentDeps, host: AgentHost) -> None:
        """Adds the agent's two nodes, and its history channel, which only they see."""
        loop = Loop(agent=self, deps=deps, host=host)
        graph.add_node(loop.think_node, loop.think, input_schema=loop.state, destinations=(loop.act_node, END))
        acting = (loop.act_node, loop.think_node, *host.handoffs)
        for node in (loop.act_node, *loop.earlier_act_nodes):
            graph.add_node(node, loop.act, input_schema=loop.state, destinations=acting)

    def compile(self, deps: AgentDeps, checkpointer: Checkpointer = None) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The agent as a LangGraph graph of its own, for use without a manager. Call it with a `TurnInput` and a
        `RunContext`, whose `progress` then holds the outcome of the turn; a hand-over ends the run."""
        graph = StateGraph(TurnInput, context_schema=RunContext)
        self.add_to(graph, deps, _Alone())
        graph.add_edge(START, self.entry)
        return graph.compile(checkpointer=checkpointer, name=self.name)


class _Alone:
    """The host of an agent that is compiled by itself."""

    handoffs = (END,)

    async def enter(self, context: RunContext) -> None:
        pass

    async def leave(self, outcome: Outcome, context: RunContext) -> Next:
        progress = context.progress
        progress.reply, progress.released = outcome.text, outcome.released
        if outcome.handoff:
            context.telling.handed_over(outcome.handoff, outcome.reason)
            progress.handoffs = (*progress.handoffs, outcome.handoff)
        return Next(END)
