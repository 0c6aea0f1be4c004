"""The SQL of the package: every statement fits the schema, and the hot ones use their keys."""

import re
from pathlib import Path

import asyncpg
import pytest

from moorline_checkpoint import database
from moorline_checkpoint.database import STATEMENTS
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.statements import fragments, load
from tests.checkpoint.checkpoints import config, put
from tests.turns.counted import gone
from tests.turns.runtimes import execute

LOADED = load(STATEMENTS, "public")
SQL = Path(database.__file__).parent / "sql"


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
    assert 'INTO "front_desk".conversation_effects' in load(STATEMENTS, "front_desk")["journal"].sql
    assert LOADED["put"].repeatable
    assert not LOADED["clear_lock"].repeatable


def written_out(text: str) -> str:
    """SQL on one line."""
    return re.sub(r"\s+", " ", text)


async def functions(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """What the functions of the schema do."""
    found = await connection.fetch(
        "SELECT prosrc AS sql FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'moorline\\_%'"
    )
    return [written_out(row["sql"]) for row in found]


async def test_a_condition_that_statements_share_is_the_same_in_functions(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """Functions have the fragments written out: one that writes such a condition in any other way fails."""
    shared = {fragment.name: written_out(fragment.sql) for fragment in fragments(STATEMENTS)}
    last_used, time_to_live, expires_at = shared["last_used"], shared["time_to_live"], shared["expires_at"]
    live = shared["lock_is_live"].replace("@moment", "moment")
    over = live.replace(" < ", " >= ")
    standing = shared["claim_stands"].replace("@claim", "claim")
    sources = await functions(connection)
    seen = dict.fromkeys((live, over, standing), 0)
    for source in sources:
        rest = source
        for condition in seen:
            seen[condition] += rest.count(condition)
            rest = rest.replace(condition, "")
        # Only these are read without also asking whether the lock is live.
        rest = rest.replace(f"used_at := {last_used}", "").replace(expires_at, "")
        # Whether any turn is open needs no claim.
        rest = rest.replace("s.claim_id IS NULL", "")
        assert "session_ttl)::" not in rest
        assert "last_active_at, s.locked_at" not in rest
        assert not re.search(r"\bs\.claim_id\b", rest)
    assert min(seen.values()) >= 2

    texts = [(SQL / name).read_text() for name in ("checkpoints.sql", "removal.sql", "sessions.sql", "turns.sql")]
    assert not any("greatest(" in text or "session_ttl)::" in text or ".claim_id =" in text for text in texts)
    assert (SQL / "fragments.sql").read_text().count("greatest(") == 1
    assert time_to_live in live


def test_every_fragment_is_put_in() -> None:
    assert all("@" not in statement.sql.replace("@>", "") for statement in LOADED.values())


async def test_reading_goes_by_the_keys_however_much_is_stored(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
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
    await connection.execute("VACUUM ANALYZE")
    listing = await connection.fetch(
        f"EXPLAIN {LOADED['list_checkpoints'].sql}", "device", "", None, None, None, None, None, None, 10
    )
    assert "Seq Scan" not in "\n".join(line[0] for line in listing)
    await connection.close()
    await saver.close()  # it opens again as it is used
    await gone(dsn)  # what they read is counted by then
    await execute(dsn, "SELECT pg_stat_reset()")

    # A statement in a function gets five custom plans, and then perhaps a generic one.
    for _ in range(8):
        stored = await put(saver, config("device"), {"a": 1})
        await saver.aget_tuple(config("device"))
        await saver.aget_delta_channel_history(config=config("device"), channels=["a"])
        assert [one async for one in saver.alist(config("device"), limit=1)]
        await saver.set_session_lock("device", "scheduling")
        assert await saver.get_session_lock("device")
        assert await saver.clear_session_lock("device")
        await saver.acopy_thread("device", "copy")
        await saver.aprune(["copy"])
        await saver.erase("copy")
    await saver.close()
    await gone(dsn)
    counted = await execute(
        dsn, "SELECT relname::text AS name, seq_scan FROM pg_stat_user_tables WHERE relname LIKE 'conversation\\_%'"
    )
    scans = {row["name"].removeprefix("conversation_"): row["seq_scan"] for row in counted}
    assert [scans[table] for table in ("states", "checkpoints", "values", "writes")] == [0, 0, 0, 0]
