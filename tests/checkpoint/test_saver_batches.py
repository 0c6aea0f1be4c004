"""What many threads store and read at the same moment goes to the database together, and each has its own outcome."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import ERROR

from moorline_checkpoint import checkpoint_store
from moorline_checkpoint.saver import DeviceCheckpointer
from tests.checkpoint.checkpoints import config, put
from tests.checkpoint.conftest import Watched

THREADS = [f"thread-{n}" for n in range(100)]
TOO_LONG = Random(0).randbytes(4000).hex()  # noqa: S311 - repeatable, no secret
"""A thread ID that no index of the database holds."""


async def state(saver: DeviceCheckpointer, thread: str) -> dict[str, Any] | None:
    found = await saver.aget_tuple(config(thread))
    return found and found.checkpoint["channel_values"]


async def writes(saver: DeviceCheckpointer, stored: RunnableConfig) -> list[tuple[str, str, Any]] | None:
    found = await saver.aget_tuple(stored)
    return found and found.pending_writes


@asynccontextmanager
async def held_up(dsn: str) -> AsyncIterator[None]:
    """A task that stores a checkpoint meanwhile is on its way until the block ends."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE conversation_checkpoints IN SHARE MODE")
            yield
    finally:
        await connection.close()


async def on_its_way(connection: "asyncpg.Connection[asyncpg.Record]", statements: int = 1) -> None:
    """Returns when so many statements wait at the server."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while await connection.fetchval(waiting) != statements:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def test_a_hundred_threads_take_a_handful_of_statements(watched: Watched) -> None:
    saver, run = watched.saver, watched.statements
    await put(saver, config("warm"), {"c": 1})  # asyncpg asks once on each connection what an array of bytes is
    await saver.aget_tuple(config("warm"))
    run.clear()

    stored = await asyncio.gather(*(put(saver, config(thread), {"c": thread}) for thread in THREADS))
    await asyncio.gather(*(saver.aput_writes(one, [("c", 1)], "task") for one in stored))
    found = await asyncio.gather(*(state(saver, thread) for thread in THREADS))

    assert found == [{"c": thread} for thread in THREADS]
    assert len(run) <= 6


async def test_a_checkpoint_and_the_writes_of_its_tasks_go_together(watched: Watched) -> None:
    saver, run = watched.saver, watched.statements
    first = await put(saver, config("thread"), own_id="1")
    run.clear()

    await asyncio.gather(
        put(saver, first, {"c": 1}, own_id="2"),
        saver.aput_writes(config("thread", "2"), [("c", 2)], "task"),
        saver.aput_writes(config("thread", "2"), [("c", 3)], "another"),
    )

    assert len(run) == 1
    assert await writes(saver, config("thread", "2")) == [("another", "c", 3), ("task", "c", 2)]


@pytest.mark.parametrize(("sizes", "expected"), [((10, 10), 1), ((600, 600), 2), ((600, 10, 5000, 10, 10), 3)])
async def test_a_statement_does_not_grow_beyond_measure(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], expected: int
) -> None:
    monkeypatch.setattr(checkpoint_store, "LARGEST", 1000)
    saver, run = watched.saver, watched.statements
    await put(saver, config("warm"), {"c": 1})
    run.clear()

    await asyncio.gather(*(put(saver, config(f"{n}"), {"c": "x" * size}) for n, size in enumerate(sizes)))

    assert len(run) == expected
    assert [await state(saver, f"{n}") for n in range(len(sizes))] == [{"c": "x" * size} for size in sizes]


async def test_what_one_is_refused_for_does_not_touch_the_others(saver: DeviceCheckpointer) -> None:
    async def attempt(work: Coroutine[Any, Any, object]) -> object:
        try:
            return await work
        except Exception as error:
            return type(error)

    threads = [*THREADS[:30], TOO_LONG, *THREADS[30:]]
    outcomes = await asyncio.gather(
        *(attempt(put(saver, config(thread), {"c": object() if n == 7 else n})) for n, thread in enumerate(threads)),
        *(attempt(saver.aput_writes(config(thread, "1"), [("c", 1)], "task")) for thread in threads),
    )

    refused = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, type)}
    assert refused == {
        7: TypeError,
        30: asyncpg.ProgramLimitExceededError,
        len(threads) + 30: asyncpg.ProgramLimitExceededError,
    }
    expected = [{"c": n} for n in range(len(threads)) if n not in refused]
    assert [one for thread in threads[:30] + threads[31:] if (one := await state(saver, thread))] == expected


async def test_a_thread_whose_head_is_held_waits_and_no_other_does(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for thread in THREADS[:3]:
        await put(saver, config(thread), {"c": "old"}, own_id="9")
        await connection.execute(
            "INSERT INTO conversation_states (device_id, heads) VALUES ($1, $2)", thread, '{"": "9"}'
        )
    async with connection.transaction():
        await connection.execute("SELECT FROM conversation_states WHERE device_id = $1 FOR UPDATE", THREADS[1])
        puts = {thread: asyncio.create_task(put(saver, config(thread), {"c": "new"}, own_id="7")) for thread in THREADS}
        held = puts.pop(THREADS[1])
        async with asyncio.timeout(5):
            await asyncio.gather(*puts.values())
            await put(saver, config(THREADS[1], ns="unrecorded"), {"c": 1})
            await saver.aput_writes(config(THREADS[1], "9"), [("c", 1)], "task")
        assert await state(saver, THREADS[0]) == {"c": "new"}
        assert await saver.aget_tuple(config(THREADS[1], "7")) is None
        assert not held.done()
    await held
    assert [await state(saver, thread) for thread in THREADS] == [{"c": "new"}] * len(THREADS)


async def test_several_heads_of_a_thread_move_together(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(
        "INSERT INTO conversation_states (device_id, heads) VALUES ($1, $2)", "thread", '{"a": "1", "b": "1", "c": "1"}'
    )
    await asyncio.gather(*(put(saver, config("thread", ns=ns), own_id=own_id) for own_id in "253" for ns in "abd"))

    heads = await connection.fetchval("SELECT heads::text FROM conversation_states")
    assert heads == '{"a": "5", "b": "5", "c": "1"}'


async def test_one_checkpoint_stored_many_times_at_once_is_the_last(watched: Watched) -> None:
    saver = watched.saver
    first = await put(saver, config("thread"), own_id="1")
    await asyncio.gather(
        put(saver, first, {"c": "a"}, own_id="2"),
        *(put(saver, config("thread", "0"), {"c": letter}, own_id="2") for letter in "bcd"),
    )

    found = await saver.aget_tuple(config("thread"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"c": "d"}
    assert found.parent_config == first
    assert watched.errors == []


async def test_writes_of_one_task_at_once_are_as_if_one_came_after_the_other(watched: Watched) -> None:
    saver = watched.saver
    stored = await put(saver, config("thread"))
    await asyncio.gather(
        saver.aput_writes(stored, [("c", 1)], "task"),
        saver.aput_writes(stored, [("c", 2), ("d", 2)], "task"),
        saver.aput_writes(stored, [(ERROR, 3)], "task"),
        saver.aput_writes(stored, [("c", 4), (ERROR, 4)], "task"),
        saver.aput_writes(stored, [(ERROR, 5)], "task"),
        saver.aput_writes(stored, [(ERROR, 6), ("c", 6)], "another"),
        saver.aput_writes(stored, [(ERROR, 7)], "another"),
    )

    assert await writes(saver, stored) == [
        ("another", ERROR, 7), ("another", "c", 6), ("task", ERROR, 5), ("task", "c", 1), ("task", "d", 2),
    ]  # fmt: skip
    assert watched.errors == []


async def test_two_processes_on_the_same_threads_never_wait_for_each_other_crosswise(
    watched: Watched, dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        savers = watched.saver, DeviceCheckpointer(pool)
        for _ in range(10):
            async with held_up(dsn):
                puts = [
                    asyncio.create_task(put(saver, config(thread), {"c": 1}, own_id="1"))
                    for saver, threads in zip(savers, (THREADS, THREADS[::-1]), strict=True)
                    for thread in threads
                ]
                await on_its_way(connection, statements=2)
            await asyncio.gather(*puts)
    assert watched.errors == []
    assert len(watched.statements) < 20  # none was sent again, thread by thread


async def test_a_task_cancelled_before_its_item_went_out_stored_nothing(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with held_up(dsn):
        first = asyncio.create_task(put(saver, config("first"), {"c": 1}))
        await on_its_way(connection)
        others = {thread: asyncio.create_task(put(saver, config(thread), {"c": 1})) for thread in THREADS}
        await asyncio.sleep(0)
        for thread in THREADS[::2]:
            others[thread].cancel()
        gone, _ = await asyncio.wait([others[thread] for thread in THREADS[::2]])
        assert all(task.cancelled() for task in gone)
    await asyncio.gather(first, *(others[thread] for thread in THREADS[1::2]))

    assert [await state(saver, thread) for thread in THREADS] == [None, {"c": 1}] * 50


async def test_a_task_cancelled_while_its_item_is_on_its_way_ends_when_the_outcome_is_known(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with held_up(dsn):
        tasks = [asyncio.create_task(put(saver, config(thread), {"c": 1})) for thread in THREADS[:10]]
        await on_its_way(connection)
        tasks[3].cancel()
        done, _ = await asyncio.wait(tasks, timeout=0.1)
        assert not done
    await asyncio.wait(tasks)

    assert [task.cancelled() for task in tasks] == [n == 3 for n in range(10)]
    assert [await state(saver, thread) for thread in THREADS[:10]] == [{"c": 1}] * 10
