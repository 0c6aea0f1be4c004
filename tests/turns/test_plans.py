"""However much is stored, a turn uses the keys of its device, and its updates stay within their pages."""

from typing import Any

from moorline_checkpoint.queue import Replayed
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import JournalEntry
from moorline_checkpoint.turns import Turns

from .claims import Connection, answer, begin, claim, message, record
from .counted import gone
from .runtimes import execute, runtime, say
from .talks import Step, process, take

FILL = """
INSERT INTO conversation_states (device_id, active_agent, locked_at, last_active_at, last_turn_no, heads)
    SELECT 'other' || n, 'hair', now(), now(), 1, '{"hair": "1"}' FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_messages (device_id, message_id, turn_no, arrival, text, status)
    SELECT 'other' || n, 'm' || n % 12, n, n, 'hello', 'done' FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, reply, status, attempts, started_at)
    SELECT 'other' || n % 1000, n, gen_random_uuid(), n, 'hello', 'done', 1, now()
    FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_checkpoints
    (device_id, checkpoint_ns, checkpoint_id, type, checkpoint, metadata, versions, turn_no)
    SELECT 'other' || n % 1000, 'hair', n, 'json', '', '{}', '{"history": "1"}', n
    FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_values (device_id, checkpoint_ns, channel, version, type, blob)
    SELECT 'other' || n % 1000, 'hair', 'history', n, 'json', '' FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_writes (device_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)
    SELECT 'other' || n % 1000, 'hair', n, 'task', 0, 'history', 'json', '' FROM generate_series(1, 20000) AS n;
INSERT INTO conversation_effects (device_id, message_id, position, kind, name, intent, turn_no, fence)
    SELECT 'other' || n, 'm' || n % 12, 0, 'database', 'book', '{}', 1, 1 FROM generate_series(1, 20000) AS n;
"""
"""20,000 rows of other devices in each table; their messages have the IDs of those that the test sends."""

CHANGED = ("conversation_states", "conversation_messages")
"""The tables whose rows a turn updates."""

TABLES = ("states", "messages", "turns", "checkpoints", "values", "writes", "effects")

INDEXED = """
    SELECT DISTINCT a.attname::text AS name
    FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND (
        a.attnum = ANY (i.indkey)
        OR EXISTS (
            SELECT 1 FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
                AND d.refobjsubid = a.attnum))
    WHERE i.indrelid = $1::text::regclass
"""

READ = """
    SELECT t.relname::text AS name, t.seq_scan AS scans, t.idx_scan AS by_index, (
            SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid) AS entries
    FROM pg_stat_user_tables t WHERE t.relname LIKE 'conversation\\_%'
"""
"""By table: the number of sequential scans, of index scans, and of index entries read."""

ROUNDS = 12
"""Statements in functions get custom plans for five runs, and then perhaps a generic one."""


async def test_a_turn_reads_by_the_keys_of_its_device(dsn: str) -> None:
    """By the server's counts, which include what runs inside functions."""
    async with process(dsn) as moorline:
        for said in ("hello", "how are you", "and now"):
            await take(moorline, Step("d1", said, 0))
    for statement in FILL.split(";")[:-1]:
        await execute(dsn, statement)
    await execute(dsn, "VACUUM ANALYZE")
    await gone(dsn)
    await execute(dsn, "SELECT pg_stat_reset()")
    async with DeviceCheckpointer.from_conn_string(dsn, pool_size=1) as saver:
        for number in range(ROUNDS):
            # A worker with nothing cached, so that Begin brings everything; every other turn prunes.
            turns = Turns(saver.database, default_ttl=60, keep_turns=2)
            turn = await claim(turns, message(f"m{number}"))
            assert turn.prefetched[""].delta_channels
            async with turns.transaction(turn) as transaction:
                await transaction.note(0, [JournalEntry(kind="answer", name="hair", intent={})])
            await begin(turns, message(f"behind {number}"))
            await turns.heartbeat(turn)
            await turns.release(turn, notify=None, failure="AgentError", give_back=True)
            again = await claim(turns, message(f"m{number}"))
            assert len(again.journal) == 1
            await turns.commit(again, record(again))
            assert isinstance(await begin(turns, message(f"m{number}")), Replayed)
            await answer(turns, message(f"behind {number}"))
            await saver.aget_tuple({"configurable": {"thread_id": "d1", "checkpoint_ns": ""}})
    await gone(dsn)
    counted = {row["name"]: row for row in await execute(dsn, READ)}
    # A turn that keeps its session does not look at those that have ended, and one without facts or files at neither.
    unused = ("conversation_sessions", "conversation_days", "conversation_facts", "conversation_files")
    assert {row["by_index"] for row in map(counted.pop, unused)} == {0}
    assert set(counted) == {f"conversation_{table}" for table in TABLES}
    for name, row in counted.items():
        assert (name, row["scans"]) == (name, 0)
        assert row["by_index"] >= ROUNDS
        assert row["entries"] / ROUNDS < 200, name


async def test_a_history_is_read_step_by_step(dsn: str) -> None:
    """Each step reads one checkpoint by its key, not all checkpoints of the device."""
    length = 25  # none of it is stored whole yet
    async with runtime(dsn, keep_turns=1000) as moorline:
        for _ in range(length):
            await say(moorline, "hello")
    for statement in FILL.split(";")[:-1]:
        await execute(dsn, statement)
    await execute(dsn, "VACUUM ANALYZE")
    await gone(dsn)
    await execute(dsn, "SELECT pg_stat_reset()")
    async with runtime(dsn, keep_turns=1000) as moorline:
        await say(moorline, "hello")
    await gone(dsn)
    entries = {row["name"]: row["entries"] for row in await execute(dsn, READ)}
    for table in ("checkpoints", "writes"):
        assert length - 2 <= entries[f"conversation_{table}"] <= 3 * length, table


async def test_no_index_has_what_a_hot_turn_changes(turns: Turns, connection: Connection) -> None:
    async def rows() -> dict[str, dict[str, Any]]:
        """The last row of each table, as text."""
        found = {}
        for table in CHANGED:
            order = "arrival DESC" if table == "conversation_messages" else "device_id"
            [row] = await connection.fetch(f"SELECT * FROM {table} ORDER BY {order} LIMIT 1")  # noqa: S608
            found[table] = dict(row)
        return found

    for number in range(2):
        turn = await claim(turns, message(f"m{number}"))
        turn.set_lock("hair", None)
        await turns.commit(turn, record(turn))
    before = await rows()
    turn = await claim(turns, message("hot", values={"who": "Ada"}))
    running = await rows()
    await turns.commit(turn, record(turn))
    after = await rows()
    for table in CHANGED:
        # The message's row is new in this turn.
        steps = [(running, after)] if table == "conversation_messages" else [(before, running), (running, after)]
        changed = {name for old, new in steps for name in new[table] if old[table][name] != new[table][name]}
        assert len(changed) > 3
        assert changed.isdisjoint({row["name"] for row in await connection.fetch(INDEXED, table)})


async def test_updates_of_hot_turns_stay_within_their_pages(dsn: str) -> None:
    """In full tables, with no vacuum that makes room meanwhile."""
    for table in CHANGED:
        await execute(dsn, f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for statement in FILL.split(";")[:2]:
        await execute(dsn, statement)
    await gone(dsn)
    await execute(dsn, "SELECT pg_stat_reset()")
    async with DeviceCheckpointer.from_conn_string(dsn, pool_size=1) as saver:
        turns = Turns(saver.database, default_ttl=60)
        for number in range(100):
            await answer(turns, message("hot", device=f"other{200 * number + 1}"))
    await gone(dsn)
    counted = await execute(
        dsn,
        "SELECT relname::text AS name, n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables"
        " WHERE relname = ANY ($1::text[])",
        CHANGED,
    )
    assert {row["name"]: row["updates"] for row in counted} == {
        "conversation_states": 200,
        "conversation_messages": 100,
    }
    for row in counted:
        # While anybody reads anywhere in the database, even the server itself, a page cannot be cleaned.
        assert row["hot"] >= row["updates"] * 0.95, row["name"]
