"""A turn that waits for no answer leaves what the next one needs, and no more."""

import json
from typing import Annotated, Any, TypedDict

from langchain_core.messages import BaseMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from moorline import Moorline, Reply, Resume, Settings
from moorline_agents.agent import Agent
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from moorline_checkpoint.rows import CheckpointRow, WriteRow
from moorline_checkpoint.serializer import StrictSerializer
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import claim, message, record
from .runtimes import execute, obedient, say
from .talks import extended

METADATA = '{"step":1,"parents":{"":"0"},"counters_since_delta_snapshot":{"history":[1,1]}}'
QUESTION = {"id": "1", "value": "really?"}
WRITTEN = (("~2", "t1", 0), ("~1", "t2", 1), ("~1", "t2", 0))
"""The path, task and index of each write."""
IN_ORDER = [b"~1 t2 0", b"~1 t2 1", b"~2 t1 0"]


def write_on(turn: OpenTurn, own_id: str) -> None:
    turn.put_writes(
        [
            WriteRow("desk", own_id, task, idx, path, "history", "bytes", f"{path} {task} {idx}".encode())
            for path, task, idx in WRITTEN
        ],
        replace=False,
    )


def put(turn: OpenTurn, own_id: str, parent: str | None) -> None:
    turn.put(CheckpointRow("desk", own_id, parent, "json", b"", METADATA, "{}"), [])


async def stored_writes(dsn: str) -> list[tuple[str, str, int, bytes]]:
    rows = await execute(dsn, "SELECT * FROM conversation_writes ORDER BY task_path, task_id, idx")
    return [(row["task_path"], row["task_id"], row["idx"], row["blob"]) for row in rows]


async def metadata_without_parents(dsn: str) -> list[bool]:
    rows = await execute(
        dsn, "SELECT metadata->'parents' IS NULL AS gone FROM conversation_checkpoints ORDER BY checkpoint_id"
    )
    return [row["gone"] for row in rows]


NUMBERED = [("", "", place, blob) for place, blob in enumerate(IN_ORDER)]
NAMED = [(path, task, idx, f"{path} {task} {idx}".encode()) for path, task, idx in sorted(WRITTEN)]


async def test_a_turn_that_waits_for_nothing_names_neither_tasks_nor_checkpoints_that_are_gone(
    turns: Turns, dsn: str
) -> None:
    turn = await claim(turns, message("m1"))
    put(turn, "1", None)
    write_on(turn, "1")
    put(turn, "2", "1")
    await turns.commit(turn, record(turn))
    assert await stored_writes(dsn) == NUMBERED
    assert await metadata_without_parents(dsn) == [True, True]


async def test_a_turn_that_waits_for_an_answer_keeps_all(turns: Turns, dsn: str) -> None:
    turn = await claim(turns, message("m1"))
    put(turn, "1", None)
    write_on(turn, "1")
    put(turn, "2", "1")
    await turns.commit(turn, record(turn, interrupt=QUESTION))
    assert await stored_writes(dsn) == NAMED
    assert await metadata_without_parents(dsn) == [False, False]


async def test_tasks_are_named_where_more_may_be_written(turns: Turns, dsn: str) -> None:
    first = await claim(turns, message("m1"))
    put(first, "1", None)
    write_on(first, "1")
    await turns.commit(first, record(first))
    assert await stored_writes(dsn) == NAMED


async def test_tasks_are_named_next_to_those_that_are_stored(turns: Turns, dsn: str) -> None:
    first = await claim(turns, message("m1"))
    put(first, "1", None)
    earlier = WriteRow("desk", "1", "t0", 0, "~1.5", "history", "bytes", b"earlier")
    first.put_writes([earlier], replace=False)
    await turns.commit(first, record(first, interrupt=QUESTION))
    second = await claim(turns, message("m2"))
    write_on(second, "1")
    put(second, "2", "1")
    await turns.commit(second, record(second))
    assert await stored_writes(dsn) == sorted([*NAMED, ("~1.5", "t0", 0, b"earlier")])


class Party(TypedDict, total=False):
    """Delta channels with several writes in one step."""

    messages: Annotated[list[BaseMessage], DeltaChannel(extended)]


def guest(name: str) -> Any:
    def speak(state: Party) -> dict[str, Any]:
        asks = name == "b" and state["messages"][-1].text == "ask"
        return {"messages": [("assistant", f"{name} {interrupt('really?')}" if asks else name)]}

    return speak


def tell(state: Party) -> dict[str, Any]:
    return {"messages": [("assistant", "[" + " ".join(str(said.text) for said in state["messages"]) + "]")]}


def process(dsn: str) -> Moorline:
    """Three nodes answer at once, one of them after a question; then everything ever said is repeated."""
    graph = StateGraph(Party).add_node("tell", tell)
    for name in "abc":
        graph.add_node(name, guest(name)).add_edge(START, name).add_edge(name, "tell")
    party = GraphAgent(name="party", description="tells", graph=graph.compile())
    return Moorline(Settings(database_url=dsn), agents=[party])


async def test_what_was_said_keeps_its_order_whether_it_was_asked_for_or_not(dsn: str) -> None:
    async def say(said: str | Resume) -> Reply:
        async with process(dsn) as moorline:
            return await moorline.run(said, {"device_id": "d1"})

    told = "[one a b c]"
    assert await say("one") == told
    question = (await say("ask")).interrupt
    assert question is not None
    told = f"[one a b c {told} ask a b yes c]"
    assert await say(Resume(interrupt_id=question.id, value="yes")) == told
    assert await say("two") == f"[one a b c [one a b c] ask a b yes c {told} two a b c]"


def routed(request: ModelRequest) -> ModelReply:
    """Every device is the desk's."""
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
    return obedient(request)


async def test_of_a_checkpoint_a_turn_stores_only_what_a_later_run_reads(dsn: str) -> None:
    """And nothing of agents that have not been asked yet."""
    agents = [Agent(name=name, description=name, instructions=name) for name in ("desk", "other")]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(routed)) as moorline:
        for _ in range(3):
            await say(moorline, "hello")
    [row] = await execute(dsn, "SELECT * FROM conversation_checkpoints ORDER BY checkpoint_id DESC LIMIT 1")
    metadata = json.loads(row["metadata"])
    assert set(json.loads(row["versions"])) == {"desk.history"}
    assert set(metadata) == {"step", "source", "counters_since_delta_snapshot"}
    assert set(metadata["counters_since_delta_snapshot"]) == {"desk.history"}
    assert set(StrictSerializer().loads_typed((row["type"], row["checkpoint"]))) == {"v", "ts"}
