"""The SQL of the package: every statement fits the schema, and the hot ones go by their keys."""

import re

import asyncpg
import pytest

from moorline_checkpoint.database import STATEMENTS
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.statements import load
from tests.checkpoint.checkpoints import config, put

LOADED = load(STATEMENTS, "public")


async def test_the_server_takes_every_statement(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for statement in LOADED.values():
        await connection.prepare(statement.sql)


@pytest.mark.parametrize("name", LOADED)
def test_no_statement_needs_the_state_of_a_server_session(name: str) -> None:
    sql = LOADED[name].sql
    assert "@schema" not in sql
    assert "--" not in sql
    assert not re.search(r"\bSELECT \*|\ASET |\bLISTEN\b|pg_advisory_lock|\bTEMP\b", sql)


def test_statements_name_the_tables_of_their_schema() -> None:
    assert 'INSERT INTO "front_desk".conversation_writes' in load(STATEMENTS, "front_desk")["put"].sql
    assert LOADED["put"].repeatable
    assert not LOADED["clear_lock"].repeatable


async def plan(connection: "asyncpg.Connection[asyncpg.Record]", name: str, *args: object) -> str:
    """How the server would run the statement again and again."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    lines = await connection.fetch(f"EXPLAIN {LOADED[name].sql}", *args)
    return "\n".join(line[0] for line in lines)


async def test_reading_goes_by_the_keys_however_much_is_stored(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stored = await put(saver, config("device"), {"a": 1, "b": 2})
    await saver.aput_writes(stored, [("a", 1)], "task")
    for table, key in (("checkpoints", "checkpoint_id"), ("values", "version"), ("writes", "task_id")):
        columns = {
            "checkpoints": "type, checkpoint, metadata, versions",
            "values": "channel, type, blob",
            "writes": "checkpoint_id, idx, channel, type, blob",
        }[table]
        await connection.execute(
            f"INSERT INTO conversation_{table} (device_id, checkpoint_ns, {key}, {columns})"  # noqa: S608
            f" SELECT 'd' || n % 100, checkpoint_ns, {key} || n, {columns}"
            f" FROM conversation_{table}, generate_series(1, 20000) AS n"
        )
    await connection.execute("INSERT INTO conversation_states (device_id) SELECT n FROM generate_series(1, 20000) AS n")
    await connection.execute("ANALYZE")

    for name, args in (
        ("get_checkpoints", (["device"], ["device"], [""], [None])),
        ("put", (["device"], ["device"], [""], *([] for _ in range(22)))),
        ("get_history", ("device", "device", "", None, ["a"])),
        ("get_lock", ("device",)),
        ("clear_lock", ("device",)),
    ):
        assert "Seq Scan" not in await plan(connection, name, *args), name
    listing = await connection.fetch(
        f"EXPLAIN {LOADED['list_checkpoints'].sql}", "device", "", None, None, None, None, None, None, 10
    )
    assert "Seq Scan" not in "\n".join(line[0] for line in listing)
