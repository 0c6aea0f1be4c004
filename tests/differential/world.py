"""What surrounds a conversation: agents that do what a message tells them, the model behind them, and what they did.

A message is a program, as JSON: which agent the router picks (`route`), and for each agent what it does on each of
its parts of the turn (`parts`), a list of model answers that are lists of tool calls. Everything that happens depends
on what is shown alone, so two graphs that show the same do the same.
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict
from zlib import crc32

from langchain_core.messages import BaseMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from pydantic import BaseModel

from moorline.manager import AgentProtocol
from moorline_agents.agent import Agent
from moorline_agents.briefing import parted
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.messages import Message, ModelAnswer, ToolCall, Usage
from moorline_agents.model import ToolChoice
from moorline_agents.model_errors import ModelError
from moorline_agents.model_options import ModelOptions
from moorline_agents.run import RunContext
from moorline_agents.tools import ToolContext, ToolRefused, tool

from ..turns.talks import extended

Fault = Literal["stop", "die", "break", "refuse", "busy"]
"""What goes wrong at one moment of a turn: all stops until it is told to go on, or for good as if the process had died;
something raises; the model server refuses, or is busy."""

KIT = ("hair", "nails", "guide")
GRAPHS = ("diary", "memo")
AGENTS = (*KIT, *GRAPHS)


class Died(Exception):
    """Ends what stopped for good, long afterwards."""


@dataclass(kw_only=True)
class World:
    """One conversation on one of the graphs: what it was shown, what it did, and what shall go wrong."""

    shown: list[tuple[str, Any]] = field(default_factory=list)
    """Everything that a model or a foreign graph was shown, in order, by agent."""
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    """What was done outside: the tool, for what, and which idempotency key it was by order of appearance."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _faults: dict[int, Fault] = field(default_factory=dict)
    _moments: int = 0
    _answers: int = 0
    _keys: dict[str, int] = field(default_factory=dict)
    _tries: Counter[str] = field(default_factory=Counter)

    def expect(self, faults: Mapping[int, Fault]) -> None:
        """Sets what goes wrong from now on, by the number of moments from here."""
        self._faults, self._moments = dict(faults), 0
        self.stopped, self.go_on = asyncio.Event(), asyncio.Event()

    async def moment(self, *, model: bool = False, stop: bool = True) -> None:
        """A moment at which something may go wrong."""
        self._moments += 1
        fault = self._faults.get(self._moments)
        if fault in ("stop", "die") and stop:
            go_on = self.go_on
            self.stopped.set()
            await go_on.wait()
            if fault == "die":
                raise Died
        elif fault == "break":
            raise LookupError("scripted")
        elif fault in ("refuse", "busy") and model:
            raise ModelError("scripted", retryable=fault == "busy")

    def call_id(self) -> str:
        self._answers += 1
        return f"call_{self._answers}"

    def did(self, name: str, what: str, key: str) -> None:
        self.calls.append((name, what, self._keys.setdefault(key, len(self._keys))))

    def check(self, what: str) -> None:
        """Some things are refused, some raise the first time, and what is fatal the first three times."""
        if what.startswith("no"):
            raise ToolRefused(f"no {what} today", code="out", things=[what])
        self._tries[what] += 1
        if self._tries[what] <= 3 * (what == "fatal") + what.startswith("fail"):
            raise LookupError(what)


talking: ContextVar[World] = ContextVar("talking")
"""The world of the conversation that the running code belongs to."""


class Thing(BaseModel):
    what: str


@tool(effect="none")
async def look(thing: Thing, context: ToolContext) -> dict[str, Any]:
    """Looks at it."""
    world = talking.get()
    await world.moment()
    world.check(thing.what)
    return {"seen": thing.what, "for": context.values.get("mood")}


@tool(effect="none")
async def wonder(thing: Thing, context: ToolContext) -> dict[str, Any]:
    """Asks the person."""
    return {"said": interrupt({"what": thing.what})}


@tool(effect="database")
async def book(thing: Thing, context: ToolContext) -> dict[str, str]:
    """Books it."""
    async with context.transaction() as connection:
        await connection.execute("INSERT INTO bookings VALUES ($1, $2)", context.device_id, thing.what)
        await talking.get().moment(stop=False)
        talking.get().check(thing.what)
    return {"booked": thing.what}


async def _call(name: str, thing: Thing, context: ToolContext) -> dict[str, str]:
    world = talking.get()
    if thing.what.startswith("no"):
        world.check(thing.what)
    world.did(name, thing.what, context.idempotency_key)
    await world.moment()
    world.check(thing.what)
    return {"done": thing.what}


@tool(effect="outside")
async def ring(thing: Thing, context: ToolContext) -> dict[str, str]:
    """Calls somebody."""
    return await _call("ring", thing, context)


@tool(effect="outside", idempotent=True)
async def chime(thing: Thing, context: ToolContext) -> dict[str, str]:
    """Calls somebody, twice if necessary."""
    return await _call("chime", thing, context)


TOOLS = (look, wonder, book, ring, chime)


def checksum(shown: object) -> str:
    return f"{crc32(json.dumps(shown, sort_keys=True, default=str).encode()):08x}"


def program_of(text: str) -> dict[str, Any]:
    """What a message tells its agents to do; a message that is not a program tells them nothing."""
    try:
        program = json.loads(text)
    except ValueError:
        return {}
    return program if isinstance(program, dict) else {}


class Obedient:
    """A model that does what the last message tells it, and says what it was shown."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
        options: ModelOptions | None = None,  # noqa: ARG002 - as the protocol
    ) -> ModelAnswer:
        world = talking.get()
        functions = [each["function"]["name"] for each in tools]
        system = str(messages[0]["content"])
        name = "route" if functions == ["route"] else system.split(maxsplit=1)[0]
        world.shown.append((name, [*messages, functions, tool_choice]))
        await world.moment(model=True)
        usage = Usage(len(messages), len(functions))
        said = [parted(message["content"] or "")[1] for message in messages if message["role"] == "user"]
        program = program_of(said[-1]) if said else {}
        if name == "route":
            return self._calling(world, [["route", {"agent": program.get("route", "nobody")}]], usage)
        visit = said.count(said[-1]) if said else 0
        last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
        answered = sum(message["role"] == "assistant" for message in messages[last:])
        rounds = _nth(program.get("parts", {}).get(name, []), visit - 1) or []
        if answered < len(rounds) and (tool_choice != "none" or program.get("stubborn")):
            return self._calling(world, rounds[answered], usage)
        text = "" if program.get("silent") == name else f"{name} was shown {len(messages)}: {checksum(messages)}"
        if on_text is not None and text:
            on_text(text[:5])
            on_text(text[5:])
        return ModelAnswer(message={"role": "assistant", "content": text}, usage=usage)

    def _calling(self, world: World, wanted: Sequence[Sequence[Any]], usage: Usage) -> ModelAnswer:
        calls: list[ToolCall] = []
        for name, arguments in wanted:
            given = arguments if isinstance(arguments, dict) else {"what": arguments}
            function: Any = {"name": name, "arguments": json.dumps(given)}
            calls.append({"id": world.call_id(), "type": "function", "function": function})
        return ModelAnswer(message={"role": "assistant", "content": None, "tool_calls": calls}, usage=usage)


def _nth(parts: Sequence[Any], place: int) -> Any:
    return parts[place] if 0 <= place < len(parts) else None


class Diary(TypedDict, total=False):
    """Deltas that are stored whole now and then, and plain values of which one seldom changes."""

    messages: Annotated[list[BaseMessage], DeltaChannel(extended, snapshot_frequency=3)]
    mood: str
    pages: Annotated[int, operator.add]
    answers: list[Any]


def _orders(state: Any, name: str) -> dict[str, Any]:
    last = next((message for message in reversed(state["messages"]) if message.type == "human"), None)
    orders = {} if last is None else program_of(str(last.text)).get(name, {})
    return orders if isinstance(orders, dict) else {}


async def _read(state: Diary, runtime: Runtime[RunContext]) -> dict[str, Any]:
    world = talking.get()
    said = [[message.type, str(message.text)] for message in state["messages"]]
    world.shown.append(("diary", [*said, state.get("mood"), state.get("pages"), state.get("answers")]))
    await world.moment()
    orders = _orders(state, "diary")
    if "book" in orders:
        context = runtime.context
        try:
            await context.journal.perform(book, json.dumps({"what": orders["book"]}), context.tools)
        except ToolRefused:
            return {"pages": 100}
    return {"pages": 1, "answers": []} | ({"mood": orders["mood"]} if "mood" in orders else {})


async def _ask(state: Diary) -> dict[str, Any]:
    orders = _orders(state, "diary")
    answers = [interrupt({"question": number}) for number in range(orders.get("asks", 0))]
    await talking.get().moment()
    return {"answers": [*state.get("answers", []), *answers]}


async def _confirm(state: Diary) -> dict[str, Any]:
    sure = interrupt("sure?") if _orders(state, "diary").get("confirm") else "yes"
    return {"answers": [*state.get("answers", []), sure]}


async def _write(state: Diary) -> dict[str, Any]:
    said = [[message.type, str(message.text)] for message in state["messages"]]
    rest = [state.get("mood"), state.get("pages"), state.get("answers")]
    await talking.get().moment()
    return {"messages": [("assistant", f"diary has {len(said)} and {rest}: {checksum(said)}")]}


def diary() -> GraphAgent:
    """Four nodes of which two may ask, and all kinds of state."""
    graph = StateGraph(Diary, context_schema=RunContext)
    for name, node in (("read", _read), ("ask", _ask), ("confirm", _confirm), ("write", _write)):
        graph.add_node(name, node)
    for one, other in ((START, "read"), ("read", "ask"), ("ask", "confirm"), ("confirm", "write"), ("write", END)):
        graph.add_edge(one, other)
    return GraphAgent(name="diary", description="diary", graph=graph.compile())


class Asked(TypedDict, total=False):
    question: str
    answer: Any


def memo() -> GraphAgent:
    """An agent that keeps no session, and asks from a graph inside it."""

    async def ask(state: Asked) -> dict[str, Any]:
        return {"answer": interrupt({"memo": state["question"]})}

    inner = StateGraph(Asked).add_node("ask", ask).add_edge(START, "ask").compile()

    async def answer(state: MessagesState) -> dict[str, Any]:
        said = [[message.type, str(message.text)] for message in state["messages"]]
        talking.get().shown.append(("memo", said))
        orders = _orders(state, "memo")
        answered = (await inner.ainvoke({"question": orders["asks"]}))["answer"] if "asks" in orders else None
        await talking.get().moment()
        return {"messages": [("assistant", f"memo has {len(said)}, answered {answered}: {checksum(said)}")]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    return GraphAgent(name="memo", description="memo", graph=graph, keeps_session=False)


class Guide(Agent):
    """Is picked for every message, as it was by the earlier manager."""

    @property
    def hands_over(self) -> bool:
        return False


def agents(*, without: str | None = None) -> list[AgentProtocol]:
    """All agents of the conversations, except `without`."""

    def told(name: str) -> Callable[[ToolContext], str]:
        return lambda context: f"{name} {json.dumps(dict(context.values), sort_keys=True)}"

    every: list[AgentProtocol] = [
        Agent(name="hair", description="hair", instructions=told("hair"), tools=TOOLS),
        Agent(name="nails", description="nails", instructions=told("nails"), tools=TOOLS, session_ttl=1000),
        Guide(name="guide", description="guide", instructions=told("guide"), tools=(look, ring), keeps_session=False),
        diary(),
        memo(),
    ]
    return [agent for agent in every if agent.name != without]
