"""Channels stored as deltas: their history is read in one statement, and pruning never loses any of it."""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Overwrite

from moorline_checkpoint.saver import DeviceCheckpointer

THREAD: RunnableConfig = {"configurable": {"thread_id": "device"}}
Durability = Literal["sync", "async", "exit"]


def appended(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(text for write in writes for text in write)]


class State(TypedDict):
    said: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=4)]
    rare: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=3)]
    turns: Annotated[int, operator.add]


def build(saver: DeviceCheckpointer, schema: Any = State) -> Any:
    """Two nodes that speak at the same time, then one that answers; every third turn has something rare."""

    def answer(state: Any) -> dict[str, Any]:
        update: dict[str, Any] = {"said": [f"answer {state['turns']}"], "turns": 1}
        return update | ({"rare": [f"rare {state['turns']}"]} if state["turns"] % 3 == 0 else {})

    builder = StateGraph(schema)
    for name in "zyxab":
        builder.add_node(name, lambda state, name=name: {"said": [f"{name} {state['turns']}"]})
        builder.add_edge(START, name)
        builder.add_edge(name, "answer")
    builder.add_node("answer", answer)
    return builder.compile(checkpointer=saver)


def expected(turns: int) -> list[str]:
    return [text for n in range(turns) for text in (f"hello {n}", *(f"{name} {n}" for name in "abxyz"), f"answer {n}")]


async def assert_history_is_langgraphs_own(saver: DeviceCheckpointer) -> None:
    channels = ["said", "rare", "turns", "unheard of"]
    async for one in saver.alist(THREAD):
        slow = await BaseCheckpointSaver.aget_delta_channel_history(saver, config=one.config, channels=channels)
        assert await saver.aget_delta_channel_history(config=one.config, channels=channels) == slow


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("prunes", [False, True])
async def test_a_conversation_keeps_all_of_its_deltas(
    saver: DeviceCheckpointer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    durability: Durability,
    prunes: bool,
) -> None:
    most = 0
    for turn in range(12 if prunes else 6):
        state = await build(saver).ainvoke({"said": [f"hello {turn}"], "turns": 0}, THREAD, durability=durability)
        assert state["said"] == expected(turn + 1)
        assert state["rare"] == [f"rare {n}" for n in range(0, turn + 1, 3)]
        if prunes:
            await saver.aprune(["device"])
            found = await build(saver).aget_state(THREAD)
            assert found.values == state
            most = max(most, await connection.fetchval("SELECT count(*) FROM conversation_checkpoints"))
    await assert_history_is_langgraphs_own(saver)
    assert most < 30  # of 48; the third of three rare writes makes a snapshot every ninth turn


async def test_every_checkpoint_of_the_past_has_the_value_it_had(saver: DeviceCheckpointer) -> None:
    graph = build(saver)
    for turn in range(5):
        await graph.ainvoke({"said": [f"hello {turn}"], "turns": 0}, THREAD)
    async for snapshot in graph.aget_state_history(THREAD):
        assert snapshot.values["said"] == expected(5)[: len(snapshot.values["said"])]


async def test_branches_have_only_their_own_past(saver: DeviceCheckpointer) -> None:
    graph = build(saver)
    for turn in range(3):
        await graph.ainvoke({"said": [f"hello {turn}"], "turns": 0}, THREAD)
    history = [snapshot async for snapshot in graph.aget_state_history(THREAD)]
    middle = next(one for one in history if one.values["said"] == expected(2) and not one.next)

    branch = await graph.aupdate_state(middle.config, {"said": ["elsewhere"]}, as_node="answer")
    await graph.aupdate_state(branch, {"said": Overwrite(["anew"])}, as_node="answer")
    state = await graph.ainvoke({"said": ["hello"], "turns": 0}, THREAD)
    assert state["said"] == ["anew", "hello", *(f"{name} 2" for name in "abxyz"), "answer 2"]
    assert (await graph.aget_state(branch)).values["said"] == [*expected(2), "elsewhere"]
    assert (await graph.aget_state(history[0].config)).values["said"] == expected(3)
    await assert_history_is_langgraphs_own(saver)

    await saver.aprune(["device"])
    assert (await graph.aget_state(THREAD)).values["said"] == state["said"]
    copied = {"configurable": {"thread_id": "copy"}}
    await saver.acopy_thread("device", "copy")
    await saver.adelete_thread("device")
    assert (await graph.aget_state(copied)).values["said"] == state["said"]


async def test_pruning_is_safe_after_a_channel_has_become_an_ordinary_one(saver: DeviceCheckpointer) -> None:
    class Ordinary(TypedDict):
        said: Annotated[list[str], operator.add]
        turns: Annotated[int, operator.add]

    for turn in range(3):
        await build(saver).ainvoke({"said": [f"hello {turn}"], "turns": 0}, THREAD)
    builder = StateGraph(Ordinary)
    builder.add_node("wait", lambda _: {"turns": 1})
    builder.add_edge(START, "wait")
    waiting: Any = builder.compile(checkpointer=saver)
    for _ in range(2):
        await waiting.ainvoke({"turns": 1}, THREAD)
        await saver.aprune(["device"])
        assert (await waiting.aget_state(THREAD)).values["said"] == expected(3)


async def test_a_graph_without_deltas_is_pruned_to_one_checkpoint(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    class Ordinary(TypedDict):
        said: Annotated[list[str], operator.add]
        turns: int

    for turn in range(3):
        state = await build(saver, Ordinary).ainvoke({"said": [f"hello {turn}"], "turns": turn}, THREAD)
        await saver.aprune(["device"])
        assert await connection.fetchval("SELECT count(*) FROM conversation_checkpoints") == 1
        assert await connection.fetchval("SELECT count(*) FROM conversation_values") == 2
        assert await connection.fetchval("SELECT count(*) FROM conversation_writes") == 0
        assert (await build(saver, Ordinary).aget_state(THREAD)).values == state
