"""An agent: instructions, tools and a model, compiled to a LangGraph subgraph that keeps its own history.

What an agent may do to the session is said with two control tools that the kit adds: `hand_over` and
`end_session`. Who holds the session is the manager's business; an agent only says what its turn came to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

from langgraph.channels import UntrackedValue
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

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
class RunContext:
    """What a run of the graph knows besides its state; never stored."""

    tools: ToolContext
    on_text: OnText | None = None
    journal: Journal = NoJournal()
    unfinished: Sequence[UnfinishedCall] = ()
    """What was done for earlier messages that have not been answered, of all agents, oldest first."""


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """Another agent, as an agent that may hand over to it sees it."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an agent's part of a turn came to."""

    text: str
    handoff: str | None = None
    """The agent that shall answer instead."""
    released: bool = False
    """Whether the agent's job is done and the session can be let go."""
    usage: Usage = Usage()


@dataclass(frozen=True, kw_only=True)
class AgentDeps:
    """What the runtime gives every agent when it compiles them."""

    model: Model
    others: tuple[AgentInfo, ...] = ()
    tool_rounds: int = 8
    """How often a model may call tools before it has to answer."""


def extend_history(history: list[Message], updates: Sequence[Sequence[Message]]) -> list[Message]:
    """The reducer of a history: appends, and forgets all but the last `HISTORY_MESSAGES`.

    Applying updates one by one or all at once gives the same list, as `DeltaChannel` demands. What depends on more than
    the number of messages is for `shown`.
    """
    return [*history, *chain.from_iterable(updates)][-HISTORY_MESSAGES:]


@dataclass(frozen=True, kw_only=True)
class AgentTurn:
    """An agent's part of a turn so far."""

    user_messages: tuple[Message, ...] = ()
    """The person's messages, until they are in the history."""
    handoff: str | None = None
    released: bool = False
    usage: Usage = Usage()


class AgentState(TypedDict, total=False):
    """An agent's own state under its own namespace: the history is kept from turn to turn, the part is one turn's.

    Updates of `history` are tuples: LangGraph turns message dicts in a *list* into LangChain messages.
    """

    history: Annotated[list[Message], DeltaChannel(extend_history, snapshot_frequency=SNAPSHOT_UPDATES)]
    turn: Annotated[AgentTurn, UntrackedValue]


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent of Moorline's own kit.

    `name` (1 to 50 letters, digits, `_`, `-`) is what the lock holds; `description` is what the router and the
    other agents are told; `instructions` may depend on the turn. `keeps_session` agents take the lock with
    `session_ttl` seconds (None: what the row or the default says). `migrations` make the tables that its tools use:
    `moorline migrate` runs them. Refused with `ValueError` when it could never work.
    """

    name: str
    description: str
    instructions: Instructions
    tools: Sequence[Tool] = ()
    model: Model | None = None
    session_ttl: int | None = None
    keeps_session: bool = True
    migrations: Migrations | None = None

    def __post_init__(self) -> None:
        control.check_name(self.name)
        names = [tool.name for tool in self.tools] + list(control.NAMES)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"Agent {self.name}: the tool names {', '.join(twice)} are taken; rename them.")
        if self.session_ttl is not None and self.session_ttl <= 0:
            raise ValueError(f"Agent {self.name}: session_ttl is a positive number of whole seconds.")

    def compile(self, deps: AgentDeps) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The agent as a LangGraph graph that keeps its state in the saver of the graph that calls it."""
        loop = _Loop(agent=self, deps=deps)
        graph = StateGraph(AgentState, context_schema=RunContext)
        graph.add_node("think", loop.think, destinations=("act", END))
        graph.add_node("act", loop.act, destinations=("think", END))
        graph.add_edge(START, "think")
        return graph.compile(checkpointer=True, name=self.name)

    def input(self, texts: Sequence[str]) -> dict[str, Any]:
        """What the graph is called with for the messages of one turn."""
        return {"turn": AgentTurn(user_messages=tuple({"role": "user", "content": text} for text in texts))}

    def outcome(self, state: dict[str, Any]) -> Outcome:
        """Reads what the turn came to from the graph's final state."""
        last, turn = state["history"][-1], state["turn"]
        return Outcome(
            text=last["content"] or "" if last["role"] == "assistant" else "",
            handoff=turn.handoff,
            released=turn.released,
            usage=turn.usage,
        )


def shown(history: Sequence[Message]) -> list[Message]:
    """What of a history a model is shown: the last `HISTORY_USER_MESSAGES` of the person, with all that followed them.
    It starts with the first of these, so no tool result is orphaned."""
    asked = [position for position, message in enumerate(history) if message["role"] == "user"]
    return list(history[asked[-HISTORY_USER_MESSAGES:][0] :]) if asked else []


class _Loop:
    """The two nodes of an agent's graph: the model thinks, the tools act, until the model only speaks."""

    def __init__(self, *, agent: Agent, deps: AgentDeps) -> None:
        self._agent = agent
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

    async def think(self, state: AgentState, runtime: Runtime[RunContext]) -> Command[str]:
        turn = state.get("turn", AgentTurn())
        history = [*shown(state.get("history", ())), *turn.user_messages]
        answer, usage = await self._answer(history, runtime.context)
        update = {
            # One update a step: each is a row.
            "history": (*turn.user_messages, answer),
            "turn": replace(turn, user_messages=(), usage=turn.usage + usage),
        }
        return Command(goto="act" if answer.get("tool_calls") else END, update=update)

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

    async def act(self, state: AgentState, runtime: Runtime[RunContext]) -> Command[str]:
        results: list[Message] = []
        turn = state.get("turn", AgentTurn())
        context = runtime.context
        # One after another: the order of effects is the order the model asked for.
        for call in state["history"][-1].get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            try:
                if name == control.HAND_OVER:
                    turn = replace(turn, handoff=control.hand_over_target(arguments, self._others))
                    result: Any = {"handed_over_to": turn.handoff}
                elif name == control.END_SESSION and self._agent.keeps_session:
                    turn = replace(turn, released=True)
                    result = {"ended": True}
                else:
                    result = await context.journal.perform(self._tool(name), arguments, context.tools)
            except ToolRefused as refusal:
                result = refusal.shown()
            content = json.dumps(result, ensure_ascii=False, default=str)
            results.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        return Command(goto=END if turn.handoff else "think", update={"history": tuple(results), "turn": turn})

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


def _rounds(history: Sequence[Message]) -> int:
    """Model answers since the person last spoke."""
    count = 0
    for message in reversed(history):
        if message["role"] == "user":
            break
        count += message["role"] == "assistant"
    return count
