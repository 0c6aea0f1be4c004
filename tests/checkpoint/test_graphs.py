"""Real graphs on the checkpointer: turns, interrupts, time travel, subgraphs, types and encryption."""

import asyncio
import operator
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import asyncpg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from moorline_checkpoint.saver import DeviceCheckpointer
from tests.checkpoint.checkpoints import put

Durability = Literal["sync", "async", "exit"]


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def echo(saver: BaseCheckpointSaver[str]) -> Any:
    """A graph of two nodes, each of which answers what was said."""
    builder = StateGraph(Said)
    builder.add_node("first", lambda state: {"said": [f"first heard {state['said'][-1]}"]})
    builder.add_node("second", lambda state: {"said": [f"second heard {len(state['said'])}"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_conversation_goes_on_in_another_process(dsn: str, durability: Durability) -> None:
    for turn in range(1, 4):
        async with DeviceCheckpointer.from_conn_string(dsn) as saver:
            state = await echo(saver).ainvoke({"said": [f"turn {turn}"]}, thread("a"), durability=durability)
            assert len(state["said"]) == 3 * turn
            assert state["said"][-3:] == [f"turn {turn}", f"first heard turn {turn}", f"second heard {3 * turn - 1}"]


async def test_fifty_threads_converse_at_once(saver: DeviceCheckpointer) -> None:
    graph = echo(saver)

    async def converse(name: str) -> list[str]:
        for turn in range(3):
            state = await graph.ainvoke({"said": [f"{name} {turn}"]}, thread(name))
        return [text for text in state["said"] if text.startswith("thread")]

    said = await asyncio.gather(*(converse(f"thread-{n}") for n in range(50)))
    assert said == [[f"thread-{n} {turn}" for turn in range(3)] for n in range(50)]


async def test_the_past_can_be_listed_read_and_branched_from(saver: DeviceCheckpointer) -> None:
    graph = echo(saver)
    for turn in ("one", "two"):
        await graph.ainvoke({"said": [turn]}, thread("a"))
    history = [snapshot async for snapshot in graph.aget_state_history(thread("a"))]
    assert [len(snapshot.values["said"]) for snapshot in history] == [6, 5, 4, 3, 3, 2, 1, 0]
    after_first = history[2]
    assert after_first.next == ("first",)

    branch = await graph.aupdate_state(after_first.config, {"said": ["corrected"]}, as_node="first")
    state = await graph.ainvoke(None, branch)
    assert state["said"][-2:] == ["corrected", "second heard 5"]
    assert (await graph.aget_state(thread("a"))).values == state

    old = await graph.aget_state(history[0].config)
    assert old.values["said"][-1] == "second heard 5"
    assert old.values["said"][-2] == "first heard two"
    replayed = await graph.ainvoke(None, after_first.config)
    assert replayed["said"][:4] == old.values["said"][:4]


async def test_sibling_branches_keep_their_own_values(saver: DeviceCheckpointer) -> None:
    graph = echo(saver)
    await graph.ainvoke({"said": ["root"]}, thread("a"))
    root = (await graph.aget_state(thread("a"))).config
    branches = await asyncio.gather(
        *(graph.aupdate_state(root, {"said": [f"branch {n}"]}, as_node="second") for n in range(20))
    )
    for n, branch in enumerate(branches):
        assert (await graph.aget_state(branch)).values["said"][-1] == f"branch {n}"


async def test_an_interrupt_is_answered_in_another_process(dsn: str) -> None:
    def ask(state: Said) -> dict[str, list[str]]:
        return {"said": [interrupt({"question": state["said"][-1]})]}

    def build(saver: DeviceCheckpointer) -> Any:
        inner = StateGraph(Said)
        inner.add_node("ask", ask)
        inner.add_edge(START, "ask")
        builder = StateGraph(Said)
        builder.add_node("inner", inner.compile())
        builder.add_node("again", ask)
        builder.add_edge(START, "inner")
        builder.add_edge("inner", "again")
        return builder.compile(checkpointer=saver)

    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        state = await build(saver).ainvoke({"said": ["when?"]}, thread("a"))
        assert [asked.value for asked in state["__interrupt__"]] == [{"question": "when?"}]
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        snapshot = await build(saver).aget_state(thread("a"), subgraphs=True)
        assert [asked.value for asked in snapshot.interrupts] == [{"question": "when?"}]
        await saver.aprune(["a"])
        state = await build(saver).ainvoke(Command(resume="tomorrow"), thread("a"))
        assert [asked.value["question"] for asked in state["__interrupt__"]][-1] == "tomorrow"
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        state = await build(saver).ainvoke(Command(resume="noon"), thread("a"))
        assert state["said"][-1] == "noon"


async def test_a_subgraph_with_its_own_memory_finds_it_again(saver: DeviceCheckpointer) -> None:
    class Count(TypedDict):
        seen: Annotated[list[str], operator.add]

    inner = StateGraph(Count)
    inner.add_node("count", lambda state: {"seen": [f"seen {len(state['seen'])}"]})
    inner.add_edge(START, "count")
    agent = inner.compile(checkpointer=True, name="agent")

    async def call(state: Said) -> dict[str, list[str]]:
        found = await agent.ainvoke({"seen": [state["said"][-1]]})
        return {"said": [found["seen"][-1]]}

    builder = StateGraph(Said)
    builder.add_node("agent", call)
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=saver)

    for turn in range(1, 5):
        state = await graph.ainvoke({"said": ["hello"]}, thread("a"))
        assert state["said"][-1] == f"seen {2 * turn - 1}"
        await saver.aprune(["a"])
    listed = [one.config["configurable"]["checkpoint_ns"] async for one in saver.alist(thread("a"))]
    assert sorted(listed) == ["", "agent"]


async def test_messages_come_back_as_messages(dsn: str) -> None:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    for turn in range(1, 3):
        builder = StateGraph(Chat)
        builder.add_node("answer", lambda state: {"messages": [AIMessage(f"{len(state['messages'])}\x00")]})
        builder.add_edge(START, "answer")
        async with DeviceCheckpointer.from_conn_string(dsn) as saver:
            graph = builder.compile(checkpointer=saver)
            state = await graph.ainvoke({"messages": [HumanMessage("hello\x00")]}, thread("a"))
        assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage] * turn
        assert state["messages"][-1].content == f"{2 * turn - 1}\x00"


@dataclass
class Booking:
    day: str

    def __post_init__(self) -> None:
        self.day = self.day.lower()


async def test_a_type_of_the_applications_comes_back_if_it_is_allowed(dsn: str) -> None:
    allowing = JsonPlusSerializer(allowed_msgpack_modules=[Booking])
    async with DeviceCheckpointer.from_conn_string(dsn, serde=allowing) as saver:
        stored = await put(saver, thread("a"), {"booking": Booking("monday")})
        found = await saver.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"booking": Booking("monday")}
    async with DeviceCheckpointer.from_conn_string(dsn) as strict:
        found = await strict.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"booking": {"day": "monday"}}
        allowed = strict.with_allowlist([(Booking.__module__, "Booking")])
        found = await allowed.aget_tuple(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"booking": Booking("monday")}
        assert isinstance(allowed, DeviceCheckpointer)
        assert allowed.database is strict.database


SCHEMA_TYPES = """
import asyncio, sys
from dataclasses import dataclass
from typing import TypedDict
from langgraph.graph import START, StateGraph
from moorline_checkpoint.saver import DeviceCheckpointer

@dataclass
class Booking:
    day: str

    def __post_init__(self):
        self.day = self.day.lower()

class State(TypedDict):
    booking: Booking

async def main():
    builder = StateGraph(State)
    builder.add_node("book", lambda state: {"booking": Booking("monday")})
    builder.add_edge(START, "book")
    async with DeviceCheckpointer.from_conn_string(sys.argv[1]) as saver:
        graph = builder.compile(checkpointer=saver)
        await graph.ainvoke({"booking": Booking("sunday")}, {"configurable": {"thread_id": "a"}})
        print((await graph.aget_state({"configurable": {"thread_id": "a"}})).values["booking"])

asyncio.run(main())
"""


@pytest.mark.parametrize(("strict", "printed"), [("true", "Booking(day='monday')"), ("false", "{'day': 'monday'}")])
def test_the_types_of_a_graphs_schemas_come_back_where_langgraph_is_told_to_be_strict(
    dsn: str, strict: str, printed: str
) -> None:
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": strict}
    run = subprocess.run(
        [sys.executable, "-c", SCHEMA_TYPES, dsn], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == printed


class Reversing:
    """A cipher that keeps nothing secret."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "reversed", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "reversed"
        return ciphertext[::-1]


async def test_an_encrypting_serializer_covers_all_that_a_graph_stores(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    serde = EncryptedSerializer(Reversing(), JsonPlusSerializer(allowed_msgpack_modules=None))
    async with DeviceCheckpointer.from_conn_string(dsn, serde=serde) as saver:
        for turn in range(1, 3):
            state = await echo(saver).ainvoke({"said": ["a secret"]}, thread("a"))
            assert len(state["said"]) == 3 * turn
    for table, column in (("checkpoints", "checkpoint"), ("values", "blob"), ("writes", "blob")):
        rows = await connection.fetch(f"SELECT type, {column} AS stored FROM conversation_{table}")  # noqa: S608
        assert rows
        assert {one["type"].partition("+")[2] for one in rows} == {"reversed"}
        assert not any(b"secret" in one["stored"] for one in rows)
