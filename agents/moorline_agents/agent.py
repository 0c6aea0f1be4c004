"""An agent: instructions, tools and a model, compiled to a LangGraph subgraph that keeps its own history.

What an agent may do to the session is said with two control tools that the kit adds: `hand_over` and
`end_session`. Who holds the session is the manager's business; an agent only says what its turn came to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, dropwhile, takewhile
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

from langgraph.channels import UntrackedValue
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Checkpointer, Command, Overwrite

from moorline_agents import control
from moorline_agents.errors import AgentError
from moorline_agents.journal import Journal, NoJournal
from moorline_agents.messages import Message, Usage
from moorline_agents.model import Model
from moorline_agents.tools import Tool, ToolContext, ToolRefused
from moorline_agents.unfinished import UnfinishedCall, unfinished_note

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from moorline_migrations.components import Migrations

HISTORY_USER_MESSAGES = 40
"""Earlier messages of the person that a model is shown, with what was said and done about them; the whole conversation
is in `conversation_turns`."""

HISTORY_MESSAGES = 120
"""Messages of all kinds that an agent keeps in its state: where tools are called much, fewer of the person's are left
to be shown."""

SNAPSHOT_UPDATES = 30
"""A history is stored as deltas; every so many of them it is stored whole, so that a read stays short."""

Instructions = str | Callable[[ToolContext], str]


class OnText(Protocol):
    """Is told the reply's text while a model writes it."""

    def __call__(self, text: str, /) -> None:
        """The next piece."""

    def withdraw(self) -> None:
        """What it was told so far is not part of the reply after all: the model called tools instead of answering."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an agent's part of a turn came to."""

    text: str = ""
    handoff: str | None = None
    """The agent that shall answer instead."""
    released: bool = False
    """Whether the agent's job is done and the session can be let go."""
    usage: Usage = Usage()


@dataclass(kw_only=True)
class Progress:
    """What a turn has come to so far. It belongs to one run of the graph and is never stored."""

    agent: str | None = None
    """The agent whose part of the turn it is, at last the one that answered."""
    reply: str = ""
    handoffs: tuple[str, ...] = ()
    usage: Usage = Usage()
    released: bool = False
    """Whether the agent has said that its job is done."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run of the graph knows besides its state; never stored."""

    tools: ToolContext
    on_text: OnText | None = None
    journal: Journal = NoJournal()
    unfinished: Sequence[UnfinishedCall] = ()
    """What was done for earlier messages that have not been answered, of all agents, oldest first."""
    progress: Progress = field(default_factory=Progress)


class AgentHost(Protocol):
    """The graph that an agent's nodes stand in."""

    async def enter(self, context: RunContext) -> None:
        """The agent's part of the turn begins, or goes on after it stopped to ask."""

    async def leave(self, outcome: Outcome, context: RunContext) -> str:
        """The agent's part of the turn is over; the node to go to next."""


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """Another agent, as an agent that may hand over to it sees it."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class AgentDeps:
    """What the runtime gives every agent whose nodes it adds to its graph."""

    model: Model
    others: tuple[AgentInfo, ...] = ()
    tool_rounds: int = 8
    """How often a model may call tools before it has to answer."""


class TurnInput(TypedDict, total=False):
    """What a graph of agents is called with: the texts of the messages that the turn answers."""

    texts: Annotated[list[str], UntrackedValue]


def extend_history(history: list[Message], updates: Sequence[Sequence[Message]]) -> list[Message]:
    """The reducer of a history: appends, and forgets all but the last `HISTORY_MESSAGES`.

    Applying updates one by one or all at once gives the same list, as `DeltaChannel` demands. What depends on more than
    the number of messages is for `shown`.
    """
    return [*history, *chain.from_iterable(updates)][-HISTORY_MESSAGES:]


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent of Moorline's own kit.

    `name` (1 to 50 letters, digits, `_`, `-`) is what the lock holds; `description` is what the router and the
    other agents are told; `instructions` may depend on the turn. `keeps_session` agents take the lock with
    `session_ttl` seconds (None: what the row or the default says). `migrations` make the tables that its tools use:
    `moorline migrate` runs them. `aliases` are names that it had before: it answers for locks that hold them, and knows
    what it knew under them. Refused with `ValueError` when it could never work.
    """

    name: str
    description: str
    instructions: Instructions
    tools: Sequence[Tool] = ()
    model: Model | None = None
    session_ttl: int | None = None
    keeps_session: bool = True
    migrations: Migrations | None = None
    aliases: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            control.check_name(name)
        names = [tool.name for tool in self.tools] + list(control.NAMES)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"Agent {self.name}: the tool names {', '.join(twice)} are taken; rename them.")
        if self.session_ttl is not None and self.session_ttl <= 0:
            raise ValueError(f"Agent {self.name}: session_ttl is a positive number of whole seconds.")

    @property
    def entry(self) -> str:
        """The node at which the agent's part of a turn begins."""
        return f"{self.name}.think"

    def add_to(self, graph: StateGraph[Any, Any, Any, Any], deps: AgentDeps, host: AgentHost) -> None:
        """Adds the agent's two nodes, and the channel of its history, which only they see."""
        loop = _Loop(agent=self, deps=deps, host=host)
        graph.add_node(loop.think_node, loop.think, input_schema=loop.state, destinations=(loop.act_node, END))
        graph.add_node(loop.act_node, loop.act, input_schema=loop.state, destinations=(loop.think_node, END))

    def compile(self, deps: AgentDeps, checkpointer: Checkpointer = None) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The agent as a LangGraph graph of its own, for use without a manager. It is called with a `TurnInput` and a
        `RunContext`, whose `progress` then tells what the turn came to; a hand-over ends it."""
        graph = StateGraph(TurnInput, context_schema=RunContext)
        self.add_to(graph, deps, _Alone())
        graph.add_edge(START, self.entry)
        return graph.compile(checkpointer=checkpointer, name=self.name)


class _Alone:
    """The host of an agent that is compiled by itself."""

    async def enter(self, context: RunContext) -> None:
        pass

    async def leave(self, outcome: Outcome, context: RunContext) -> str:
        progress = context.progress
        progress.reply, progress.released = outcome.text, outcome.released
        progress.usage += outcome.usage
        if outcome.handoff:
            progress.handoffs = (*progress.handoffs, outcome.handoff)
        return END


def shown(history: Sequence[Message]) -> list[Message]:
    """What of a history a model is shown: the last `HISTORY_USER_MESSAGES` of the person, with all that followed them.
    It starts with the first of these, so no tool result is orphaned."""
    asked = [position for position, message in enumerate(history) if message["role"] == "user"]
    return list(history[asked[-HISTORY_USER_MESSAGES:][0] :]) if asked else []


class _Loop:
    """The two nodes of an agent: the model thinks, the tools act, until the model only speaks.

    Updates of the history are tuples: LangGraph turns message dicts in a *list* into LangChain messages.
    """

    def __init__(self, *, agent: Agent, deps: AgentDeps, host: AgentHost) -> None:
        self._agent = agent
        self._host = host
        self._model = agent.model or deps.model
        self._rounds = deps.tool_rounds
        self._tools = {tool.name: tool for tool in agent.tools}
        others = tuple(other for other in deps.others if other.name != agent.name)
        self._others = frozenset(other.name for other in others)
        self._schemas = [tool.schema for tool in agent.tools]
        if others:
            self._schemas.append(control.hand_over_schema({other.name: other.description for other in others}))
        if agent.keeps_session:
            self._schemas.append(control.END_SESSION_SCHEMA)
        self.think_node, self.act_node = agent.entry, f"{agent.name}.act"
        self._history, *self._earlier = (f"{name}.history" for name in (agent.name, *agent.aliases))
        history = Annotated[list[Message], DeltaChannel(extend_history, snapshot_frequency=SNAPSHOT_UPDATES)]
        texts = TurnInput.__annotations__["texts"]
        schema: Any = TypedDict  # the type checker takes literal names only
        self.state: type[Any] = schema(
            f"{agent.name}.state",
            {"texts": texts, **dict.fromkeys((self._history, *self._earlier), history)},
            total=False,
        )

    async def think(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        context = runtime.context
        asked: tuple[Message, ...] = ()
        if context.progress.agent != self._agent.name:
            context.progress.agent, context.progress.released = self._agent.name, False
            await self._host.enter(context)
            asked = tuple({"role": "user", "content": text} for text in state.get("texts", ()))
        known = state.get(self._history, ())
        carried = {channel: state[channel] for channel in self._earlier if state.get(channel)}
        inherited = tuple(chain.from_iterable(carried.values()))
        answer, usage = await self._answer([*shown([*known, *inherited]), *asked], context)
        # One update a step: each is a row.
        update: dict[str, Any] = {self._history: (*inherited, *asked, answer)}
        update |= dict.fromkeys(carried, Overwrite([]))
        if answer.get("tool_calls"):
            context.progress.usage += usage
            return Command(goto=self.act_node, update=update)
        outcome = Outcome(text=answer["content"] or "", released=context.progress.released, usage=usage)
        return Command(goto=await self._host.leave(outcome, context), update=update)

    async def _answer(self, history: Sequence[Message], context: RunContext) -> tuple[Message, Usage]:
        recalled = context.journal.recall(self._agent.name)
        if recalled is not None:
            return recalled, Usage()
        tired = _rounds(history) >= self._rounds
        answer = await self._model.complete(
            [self._system(context), *history],
            tools=self._schemas,
            tool_choice="none" if tired and self._schemas else None,
            on_text=context.on_text,
        )
        calls = bool(answer.message.get("tool_calls"))
        if tired and calls:
            raise AgentError(
                f"The model of agent {self._agent.name} called tools {self._rounds} times without answering. "
                "If it needs more, raise MOORLINE_TOOL_ROUNDS."
            )
        if calls:
            if context.on_text is not None:
                context.on_text.withdraw()
            context.journal.note(self._agent.name, answer.message)
        return answer.message, answer.usage

    async def act(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        results: list[Message] = []
        context = runtime.context
        handoff: str | None = None
        # One after another: the order of effects is the order the model asked for.
        for call in state[self._history][-1].get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            try:
                if name == control.HAND_OVER:
                    handoff = control.hand_over_target(arguments, self._others)
                    result: Any = {"handed_over_to": handoff}
                elif name == control.END_SESSION and self._agent.keeps_session:
                    context.progress.released = True
                    result = {"ended": True}
                else:
                    result = await context.journal.perform(self._tool(name), arguments, context.tools)
            except ToolRefused as refusal:
                result = refusal.shown()
            content = json.dumps(result, ensure_ascii=False, default=str)
            results.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        update: dict[str, Any] = {self._history: tuple(results)}
        if handoff is None:
            # After an interrupt, a run begins here.
            context.progress.agent = self._agent.name
            return Command(goto=self.think_node, update=update)
        if not state.get("texts"):
            # A run that goes on after an interrupt was not called with what the person had said.
            update["texts"] = _last_texts(state[self._history])
        outcome = Outcome(handoff=handoff, released=context.progress.released)
        return Command(goto=await self._host.leave(outcome, context), update=update)

    def _tool(self, name: str) -> Tool:
        if name not in self._tools:
            known = ", ".join(self._tools) or "none"
            raise ToolRefused(f"There is no tool {name}. The tools are: {known}.", code="unknown_tool")
        return self._tools[name]

    def _system(self, context: RunContext) -> Message:
        instructions = self._agent.instructions
        told = instructions if isinstance(instructions, str) else instructions(context.tools)
        # Not in the history: once the message is answered, its own turn says what was done.
        note = unfinished_note(context.unfinished, agent=self._agent.name, tools=self._tools)
        return {"role": "system", "content": f"{told}\n\n{note}" if note else told}


def _last_texts(history: Sequence[Message]) -> list[str]:
    """What the person said last, in however many messages."""
    before = dropwhile(lambda message: message["role"] != "user", reversed(history))
    asked = takewhile(lambda message: message["role"] == "user", before)
    return [message["content"] or "" for message in asked][::-1]


def _rounds(history: Sequence[Message]) -> int:
    """Model answers since the person last spoke."""
    count = 0
    for message in reversed(history):
        if message["role"] == "user":
            break
        count += message["role"] == "assistant"
    return count
