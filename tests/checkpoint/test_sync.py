"""Synchronous calls: they are answered in any thread that runs no event loop, whatever the other threads do."""

import asyncio
import operator
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, StateGraph

from moorline_checkpoint import sync_saver
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import ConfigurationError, StoreUnavailable
from tests.checkpoint.checkpoints import config, put


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def answering(saver: DeviceCheckpointer) -> Any:
    """A graph whose synchronous node runs another graph and looks at the past of its own."""
    inner = StateGraph(Said)
    inner.add_node("count", lambda state: {"said": [f"heard {len(state['said'])}"]})
    inner.add_edge(START, "count")
    counting = inner.compile()

    def answer(state: Said) -> dict[str, list[str]]:
        heard = counting.invoke({"said": state["said"]})["said"][-1]
        past = len(list(graph.get_state_history({"configurable": {"thread_id": "a"}})))
        return {"said": [f"{heard}, {past}"]}

    builder = StateGraph(Said)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=saver)
    return graph


async def test_a_synchronous_node_runs_graphs_and_looks_at_the_past(saver: DeviceCheckpointer) -> None:
    graph = answering(saver)
    state = await graph.ainvoke({"said": ["one"]}, config("a"), durability="sync")
    assert state["said"] == ["one", "heard 1, 2"]
    state = await graph.ainvoke({"said": ["two"]}, config("a"), durability="sync")
    assert state["said"][2:] == ["two", "heard 3, 5"]


def test_a_thread_without_an_event_loop_has_all_of_it(dsn: str) -> None:
    saver = DeviceCheckpointer.from_conn_string(dsn)
    graph = answering(saver)
    for turn in ("one", "two"):
        state = graph.invoke({"said": [turn]}, config("a"), durability="sync")
    assert state["said"] == ["one", "heard 1, 2", "two", "heard 3, 5"]
    assert graph.get_state(config("a")).values == state
    assert len(list(saver.list(config("a"), limit=3))) == 3
    saver.copy_thread("a", "b")
    saver.prune(["a"])
    assert (len(list(saver.list(config("a")))), len(list(saver.list(config("b"))))) == (1, 6)
    saver.delete_thread("a")
    assert saver.get_tuple(config("a")) is None
    asyncio.run(saver.close())


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("get_tuple", (config("device"),)),
        ("list", (config("device"),)),
        ("put", (config("device"), empty_checkpoint(), {}, {})),
        ("put_writes", (config("device"), [], "task")),
        ("delete_thread", ("device",)),
        ("delete_for_runs", (["run"],)),
        ("copy_thread", ("device", "other")),
        ("prune", (["device"],)),
    ],
)
async def test_the_thread_of_an_event_loop_is_told_what_to_await(name: str, args: tuple[object, ...]) -> None:
    saver = DeviceCheckpointer.from_conn_string("postgresql://")
    with pytest.raises(NotImplementedError, match=re.escape(f"saver.a{name}(")):
        getattr(saver, name)(*args)


async def test_neither_a_busy_loop_nor_a_full_executor_holds_a_call_up(saver: DeviceCheckpointer) -> None:
    stored = await put(saver, config("device"), {"c": 1})
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    def read() -> float:
        saver.get_tuple(stored)
        return time.monotonic()

    await asyncio.to_thread(read)
    reading = asyncio.get_running_loop().run_in_executor(None, read)
    time.sleep(0.5)  # noqa: ASYNC251  # the loop is busy
    free_at = time.monotonic()
    assert await reading < free_at - 0.2


async def test_a_callers_pool_is_used_on_its_own_loop(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        saver = DeviceCheckpointer(pool)
        stored = await put(saver, config("device"), {"c": 1})
        found = await asyncio.to_thread(saver.get_tuple, stored)
        assert found is not None
        assert pool.get_size() == 1


async def test_a_callers_pool_whose_loop_is_blocked_is_given_up(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_saver, "DEADLINE", 0.2)
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        saver = DeviceCheckpointer(pool)
        failed: list[BaseException] = []

        def read() -> None:
            try:
                saver.get_tuple(config("device"))
            except StoreUnavailable as error:
                failed.append(error)

        reading = threading.Thread(target=read)
        reading.start()
        reading.join()  # the loop waits for the thread, and the thread for the loop
        assert "something blocks it" in str(failed[0])


def test_a_callers_pool_whose_loop_is_over_is_named(dsn: str) -> None:
    async def given() -> DeviceCheckpointer:
        async with asyncpg.create_pool(dsn, min_size=0) as pool:
            return DeviceCheckpointer(pool)

    saver = asyncio.run(given())
    with pytest.raises(ConfigurationError, match="from_conn_string"):
        saver.get_tuple(config("device"))


async def test_closing_ends_the_thread_and_its_connections(saver: DeviceCheckpointer) -> None:
    for _ in range(2):
        await asyncio.to_thread(saver.get_tuple, config("device"))
        assert "moorline-checkpointer" in {thread.name for thread in threading.enumerate()}
        await saver.close()
        assert "moorline-checkpointer" not in {thread.name for thread in threading.enumerate()}


PROCESS = """
import os, sys
from moorline_checkpoint.saver import DeviceCheckpointer

saver = DeviceCheckpointer.from_conn_string(sys.argv[1])
config = {"configurable": {"thread_id": "a"}}
saver.get_tuple(config)
if os.fork() == 0:
    saver.get_tuple(config)
    print("the child has read")
    sys.exit()
os.wait()
saver.get_tuple(config)
print("the parent has read")
"""


def test_a_forked_process_calls_as_well_and_both_end_cleanly(dsn: str) -> None:
    command = [sys.executable, "-uW", "default", "-c", PROCESS, dsn]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["the child has read", "the parent has read"]
