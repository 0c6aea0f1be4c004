"""Erasing, deleting, copying and pruning: what is removed, what stays, and what may happen at the same time."""

import asyncio
from typing import Any

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from tests.checkpoint.checkpoints import config, put

TABLES = (
    *("states", "messages", "turns", "checkpoints", "values", "writes"),
    *("effects", "sessions", "days", "facts", "files"),
)

FILL = """
INSERT INTO conversation_states (device_id, active_agent, locked_at) VALUES ($1, 'scheduling', now());
INSERT INTO conversation_messages (device_id, message_id, arrival, text, status) VALUES ($1, 'm', 1, 'hello', 'done');
INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, reply, status, attempts, started_at)
    VALUES ($1, 1, gen_random_uuid(), 1, 'hello', 'done', 1, now());
INSERT INTO conversation_effects (device_id, message_id, position, kind, name, intent, turn_no, fence)
    VALUES ($1, 'm', 1, 'database', 'book', '{}', 1, 1);
INSERT INTO conversation_sessions (device_id, ended_at, position, agent, locked_at, why)
    VALUES ($1, now(), 1, 'scheduling', now(), 'released');
INSERT INTO conversation_days (device_id, day, agent, model, turns, input_tokens, output_tokens)
    VALUES ($1, now(), '', '', 1, 0, 0);
INSERT INTO conversation_facts (device_id, namespace, key, value, created_at, updated_at)
    VALUES ($1, 'scheduling.people.', 'name', '{"name": "Ada"}', now(), now());
INSERT INTO conversation_files (device_id, hash, type, size, data, stored_at)
    VALUES ($1, 'hash', 'image/png', 1, 'x', now());
INSERT INTO appointments (device_id, provider_id, service_id, during)
    SELECT $1, provider_id, service_id, tstzrange(now() + $1::text::interval, now() + $1::text::interval + '1 minute')
    FROM appointment_providers, appointment_services;
"""


async def fill(connection: "asyncpg.Connection[asyncpg.Record]", device: str) -> None:
    """Inserts a row of the device into every table of conversations except the checkpoint tables, and into
    `appointments`."""
    for statement in FILL.split(";")[:-1]:
        await connection.execute(statement, device)


async def rows_of(connection: "asyncpg.Connection[asyncpg.Record]", device: str) -> dict[str, int]:
    counts = {}
    for table in TABLES:
        counts[table] = await connection.fetchval(
            f"SELECT count(*) FROM conversation_{table} WHERE device_id = $1",  # noqa: S608
            device,
        )
    return counts


async def test_erasing_a_device_leaves_no_row_of_it_and_every_row_of_others(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("INSERT INTO appointment_services (name, minutes) VALUES ('cut', 30)")
    await connection.execute("INSERT INTO appointment_providers (name, time_zone) VALUES ('Ada', 'UTC')")
    for device in ("1 hour", "2 hours"):
        await fill(connection, device)
        for ns in ("", "agent"):
            stored = await put(saver, config(device, ns=ns), {"n": 1})
            await saver.aput_writes(stored, [("n", 2)], "task")
    before = await rows_of(connection, "2 hours")
    assert min(before.values()) > 0

    tables = await connection.fetch(
        "SELECT table_name::text FROM information_schema.columns JOIN information_schema.tables USING (table_name)"
        " WHERE column_name = 'device_id' AND table_type = 'BASE TABLE'"
    )
    others = {"appointments", "moorline_codes", "moorline_people"}
    assert {one["table_name"] for one in tables} == {f"conversation_{table}" for table in TABLES} | others

    await saver.adelete_thread("1 hour")

    assert set((await rows_of(connection, "1 hour")).values()) == {0}
    assert await rows_of(connection, "2 hours") == before
    assert await connection.fetchval("SELECT count(*) FROM appointments") == 2


async def waiting_for_a_lock(connection: "asyncpg.Connection[asyncpg.Record]", waiting: int = 1) -> None:
    """Returns when that many sessions wait for a lock in this database. Do not call it inside a transaction, whose view
    of them never changes."""
    while waiting != await connection.fetchval(  # noqa: ASYNC110 - the server cannot call us
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ):
        await asyncio.sleep(0.01)


async def test_erasing_waits_for_a_turn_that_is_committing_and_removes_what_it_wrote(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock("device", "scheduling")
    committing = await asyncpg.connect(dsn)
    async with committing.transaction():
        await committing.execute("UPDATE conversation_states SET last_turn_no = 1")
        erasing = asyncio.create_task(saver.adelete_thread("device"))
        await waiting_for_a_lock(connection)
        await committing.execute(
            "INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, reply, status, attempts, started_at)"
            " VALUES ('device', 1, gen_random_uuid(), 1, 'hello', 'done', 1, now())"
        )
    await erasing
    await committing.close()

    assert set((await rows_of(connection, "device")).values()) == {0}


async def test_deleting_a_run_takes_its_values_and_writes_and_leaves_those_still_used(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for device in ("device", "other"):
        first = await put(saver, config(device), {"shared": 1}, own_id="1", metadata={"run_id": "a"})
        await saver.aput_writes(first, [("shared", 2)], "task")
        found = await saver.aget_tuple(first)
        assert found is not None
        second = found.checkpoint | {"id": "2"}
        second["channel_values"] = {"shared": 1, "own": 2}
        second["channel_versions"] = {**second["channel_versions"], "own": "1"}
        await saver.aput(first, second, {"run_id": "b"}, {"own": "1"})

    await saver.adelete_for_runs(["a"])
    found = await saver.aget_tuple(config("device"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"shared": 1, "own": 2}
    assert found.parent_config is None
    counts = await rows_of(connection, "device")
    assert (counts["checkpoints"], counts["values"], counts["writes"]) == (1, 2, 0)

    await saver.adelete_for_runs(["b"])
    for device in ("device", "other"):
        assert set((await rows_of(connection, device)).values()) == {0}


async def test_pruning_leaves_what_the_latest_checkpoints_use_and_nothing_else(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for ns in ("", "agent"):
        parent = config("device", ns=ns)
        for n in range(5):
            parent = await put(saver, parent, {"a": n, "b": [n]})
            await saver.aput_writes(parent, [("a", n + 1)], "task")
    await saver.aput_writes(config("device", "not stored yet"), [("a", 9)], "task")
    await put(saver, config("other"), {"a": 1})

    await saver.aprune(["device"])

    for ns in ("", "agent"):
        found = await saver.aget_tuple(config("device", ns=ns))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 4, "b": [4]}
        assert found.pending_writes == [("task", "a", 5)]
        assert found.parent_config is None
    counts = await rows_of(connection, "device")
    assert (counts["checkpoints"], counts["values"], counts["writes"]) == (2, 4, 3)


async def test_pruning_takes_the_calls_of_subgraphs_with_the_root_they_were_called_from(
    saver: DeviceCheckpointer,
) -> None:
    first = await put(saver, config("device"), own_id="1")
    await put(saver, first, own_id="2")
    parents: dict[str, dict[str, Any]] = {
        "past:task": {"": "1"},
        "past:task|inner:task": {"": "1", "past:task": "1"},
        "present:task": {"": "2"},
        "early:task": {"": "3"},
        "agent": {"": "1"},
    }
    for ns, named in parents.items():
        await put(saver, config("device", ns=ns), own_id="1", metadata={"parents": named})

    await saver.aprune(["device"])

    kept = {
        one.config["configurable"]["checkpoint_ns"]
        async for one in saver.alist({"configurable": {"thread_id": "device"}})
    }
    assert kept == {"", "present:task", "early:task", "agent"}


async def test_prunings_and_erasures_of_a_device_take_turns(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await put(saver, config("device"))
    removing = await asyncpg.connect(dsn)
    async with removing.transaction():
        await removing.execute("SELECT moorline_hold('device')")
        pruning = asyncio.create_task(saver.aprune(["device"]))
        erasing = asyncio.create_task(saver.adelete_thread("device"))
        await waiting_for_a_lock(connection, 2)
    await asyncio.gather(pruning, erasing)
    await removing.close()


async def test_a_removal_that_waited_holds_what_is_there_by_then(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """The one before it removed all that was there when it began to wait, and something new has come."""
    await put(saver, config("device"))
    first, second = [await asyncpg.connect(dsn) for _ in range(2)]
    async with second.transaction():
        async with first.transaction():
            await first.execute("SELECT moorline_hold('device')")
            holding = asyncio.create_task(second.execute("SELECT moorline_hold('device')"))
            await waiting_for_a_lock(connection, 1)
            await first.execute("DELETE FROM conversation_checkpoints")
            await put(saver, config("device"))
        await holding
        with pytest.raises(asyncpg.LockNotAvailableError):
            await connection.execute("SELECT 1 FROM conversation_checkpoints FOR UPDATE NOWAIT")
    await first.close()
    await second.close()


async def test_a_statement_that_the_database_ends_to_break_a_deadlock_is_sent_again(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    older, newer = [(await put(saver, config("device")))["configurable"]["checkpoint_id"] for _ in range(2)]
    lock = "SELECT 1 FROM conversation_checkpoints WHERE checkpoint_id = $1 FOR UPDATE"
    other = await asyncpg.connect(dsn, server_settings={"deadlock_timeout": "60s"})
    async with other.transaction():
        await other.execute(lock, newer)
        pruning = asyncio.create_task(saver.aprune(["device"]))
        await waiting_for_a_lock(connection, 1)
        await other.execute(lock, older)
    await pruning
    await other.close()
    assert await connection.fetchval("SELECT checkpoint_id FROM conversation_checkpoints") == newer


async def test_prunings_and_erasures_of_a_device_may_meet(saver: DeviceCheckpointer) -> None:
    for _ in range(5):
        parent = config("device")
        for n in range(20):
            parent = await put(saver, parent, {"a": n})
        await asyncio.gather(
            *(saver.aprune(["device", "device"]) for _ in range(4)),
            *(put(saver, parent, {"a": n}) for n in range(5)),
            saver.adelete_thread("device"),
        )


async def test_a_copy_is_whole_and_lives_on_its_own(saver: DeviceCheckpointer) -> None:
    stored = await put(saver, config("device"), {"a": 1})
    await saver.aput_writes(stored, [("a", 2)], "task", "path")
    await saver.acopy_thread("device", "copy")
    await saver.acopy_thread("device", "copy")
    await saver.adelete_thread("device")

    found = await saver.aget_tuple(config("copy"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"a": 1}
    assert found.pending_writes == [("task", "a", 2)]


async def test_an_unknown_strategy_is_refused(saver: DeviceCheckpointer) -> None:
    with pytest.raises(ValueError, match="keep_latest"):
        await saver.aprune(["device"], strategy="keep_some")


async def test_one_string_where_several_belong_is_refused(saver: DeviceCheckpointer) -> None:
    """Its letters would be taken for threads or runs."""
    stored = await put(saver, config("7"), {"c": 1}, metadata={"run_id": "7"})
    for strategy in ("delete", "keep_latest"):
        with pytest.raises(TypeError, match="must be a list"):
            await saver.aprune("thread-7", strategy=strategy)
    with pytest.raises(TypeError, match="must be a list"):
        await saver.adelete_for_runs("run-7")
    with pytest.raises(TypeError, match="must be a list"):
        await saver.aget_delta_channel_history(config=stored, channels="c")
    with pytest.raises(TypeError, match="must be a list"):
        await asyncio.to_thread(saver.prune, "thread-7", strategy="delete")
    assert await saver.aget_tuple(stored) is not None
