"""The tables of conversations can be partitioned by device: every statement of a turn finds its rows by that key
alone."""

import re
from pathlib import Path

import asyncpg
import pytest

import moorline_migrations
from moorline_checkpoint.queue import Busy, Replayed, StaleResume, Waiting
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import JournalEntry
from moorline_checkpoint.turns import Turns
from moorline_migrations.identifiers import in_schema
from tests.checkpoint.checkpoints import config, put

from .claims import Connection, answer, begin, claim, expire_lease, ids, message, record, statuses
from .test_stale_resume import ask, resume

SCHEMA = (Path(moorline_migrations.__file__).parent / "sql" / "moorline" / "schema.sql").read_text()
TABLE = re.compile(r"CREATE TABLE @schema\.(conversation_\w+) \((.*?)\n\)[^;]*;", re.DOTALL)
PARTITIONS = 4
DEVICES = [f"d{number}" for number in range(12)]


def partitioned(found: re.Match[str]) -> str:
    """SQL that partitions the table by device."""
    name, columns = found[1], found[2]
    spread = f"CREATE TABLE @schema.{name} ({columns}\n) PARTITION BY HASH (device_id);"
    parts = (
        f"CREATE TABLE @schema.{name}_{number} PARTITION OF @schema.{name}"
        f" FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number});"
        for number in range(PARTITIONS)
    )
    return "\n".join((spread, *parts))


@pytest.fixture
async def dsn(empty_dsn: str) -> str:
    """A database whose tables of conversations are partitioned."""
    sql, tables = TABLE.subn(partitioned, SCHEMA)
    assert tables == 11
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(in_schema(sql, "public"))
    await connection.close()
    return empty_dsn


async def test_turns_run(turns: Turns, connection: Connection) -> None:
    for device in DEVICES:
        await answer(turns, message("m1", device=device))
        assert isinstance(await begin(turns, message("m1", device=device)), Replayed)
    turn = await claim(turns, message("m2"))
    turn.set_lock("desk", 60)
    async with turns.transaction(turn) as transaction:
        await transaction.note(0, [JournalEntry(kind="outside", agent="desk", name="ring", intent="{}")])
        await transaction.note_result(0, {"value": 1})
    assert await begin(turns, message("m3")) == Waiting()
    assert isinstance(await begin(turns, message("m4", on_busy="reject")), Busy)
    assert await turns.heartbeat(turn)
    assert await turns.release(turn, notify="m2", failure="AgentError", give_back=False)
    other = await claim(turns, message("m3"))
    assert [effect.name for effect in other.unfinished] == ["ring"]
    await turns.abandon(other, give_back=True)
    recovered = await turns.begin_orphaned("d1")
    assert recovered is not None
    assert ids(recovered) == ["m3"]
    await turns.commit(recovered, record(recovered))
    assert (await answer(turns, message("m2"))).turn_no == 3
    assert await begin(turns, resume()) == StaleResume(resume=resume().resume)  # type: ignore[arg-type]  # has one
    await ask(turns, message_id="question")
    await answer(turns, resume())
    await claim(turns, message("m5"))
    await expire_lease(connection)
    assert not await turns.withdraw(message("m6"), claim_id=other.claim_id)
    assert await turns.orphaned() == ["d1"]
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1, 2, 3, 4, 5]
    assert (await statuses(connection))["m5"] == ("running", 1)


async def test_checkpoints_are_kept_pruned_copied_and_erased(dsn: str, connection: Connection) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        for device in DEVICES:
            parent = config(device)
            for number in range(3):
                parent = await put(saver, parent, {"a": number}, metadata={"run_id": str(number)})
                await saver.aput_writes(parent, [("a", number)], "task")
            await saver.set_session_lock(device, "desk", ttl=60)
        assert len([one async for one in saver.alist(None)]) == 3 * len(DEVICES)
        await saver.adelete_for_runs(["0"])
        await saver.aprune(DEVICES)
        await saver.acopy_thread("d1", "copy")
        found = await saver.aget_tuple(config("copy"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": 2}
        assert [session.device_id async for session in saver.sessions()] == sorted(DEVICES)
        assert await saver.clear_session_lock("d1")
        await connection.execute(
            "UPDATE conversation_states SET locked_at = now() - interval '1 day', last_active_at = NULL"
        )
        assert await saver.cleanup_expired_sessions() == len(DEVICES) - 1
        assert all([await saver.erase(device) for device in (*DEVICES, "copy")])
    for table in ("states", "checkpoints", "values", "writes"):
        assert await connection.fetchval(f"SELECT count(*) FROM conversation_{table}") == 0  # noqa: S608
