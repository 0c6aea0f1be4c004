"""One process cleans up at a time, by a lease; each hour of turns is counted once, whoever counts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from moorline_checkpoint import cleanup
from moorline_checkpoint.cleanup import alone, roll_up
from moorline_checkpoint.database import Database
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.saver import DeviceCheckpointer

from .claims import Connection
from .runtimes import execute

TURNS = """
INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, agent, reply, usage, status, attempts, started_at,
    committed_at)
SELECT 'd' || n % 7, n, gen_random_uuid(), n, CASE WHEN n % 3 > 0 THEN 'hair' END, '',
    '{"m": [3, 1], "n": {"route": [5, 2]}}', 'done', 1, now(), now() - make_interval(mins => n::integer)
FROM generate_series(1, $1::bigint) n
"""
COUNTED = "SELECT sum(turns)::int AS turns, sum(input_tokens)::int AS tokens FROM conversation_days"

TOTALS = """
SELECT day, agent, model, sum(turns)::bigint, sum(people)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint
FROM moorline_days
GROUP BY day, agent, model
HAVING sum(people) > 0 OR sum(input_tokens) > 0
ORDER BY day, agent, model
"""
ADDED_UP = """
WITH over AS (
    SELECT d.* FROM conversation_days d, moorline_cleanups c WHERE d.day < (c.rolled_up_to AT TIME ZONE 'UTC')::date
)
SELECT day, agent, model, sum(turns)::bigint, count(*) FILTER (WHERE turns > 0), sum(input_tokens)::bigint,
    sum(output_tokens)::bigint
FROM over
GROUP BY day, agent, model
UNION ALL
SELECT day, '*', '', 0, count(DISTINCT device_id), 0, 0 FROM over WHERE turns > 0 GROUP BY day
ORDER BY day, agent, model
"""
"""What is in conversation_days of days that are over."""


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    yield database
    await database.close()


async def forever() -> str:
    await asyncio.Event().wait()
    return "never"


async def done() -> str:
    return "done"


async def test_one_process_cleans_up_at_a_time(database: Database) -> None:
    first = asyncio.create_task(alone(database, forever))
    while not await execute(database.dsn or "", "SELECT FROM moorline_cleanups WHERE lease_until > now()"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert [await alone(database, done) for _ in range(3)] == [None, None, None]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await alone(database, done) == "done"
    assert await alone(database, done) == "done"


async def test_of_many_at_once_one_cleans_up_in_each_pause(database: Database) -> None:
    results = await asyncio.gather(*(alone(database, done, pause=60) for _ in range(10)))
    assert results.count("done") == 1
    assert await alone(database, done, pause=60) is None
    assert await alone(database, done) == "done"


async def test_a_process_that_died_holds_up_the_next_for_its_lease_only(
    database: Database, connection: Connection
) -> None:
    claim = "UPDATE moorline_cleanups SET claim_id = gen_random_uuid(), lease_until = now() + $1::interval"
    await connection.execute(claim, timedelta(seconds=30))
    assert await alone(database, done) is None
    await connection.execute(claim, timedelta(seconds=-1))
    assert await alone(database, done) == "done"


async def test_a_lease_is_renewed_and_a_lost_one_ends_the_work(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "RENEW", 0.05)
    work = asyncio.create_task(alone(database, forever))
    until = "SELECT lease_until FROM moorline_cleanups"
    while (first := await connection.fetchval(until)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        while await connection.fetchval(until) <= first:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await connection.execute("UPDATE moorline_cleanups SET claim_id = gen_random_uuid()")
        assert await work is None
    assert await connection.fetchval("SELECT lease_until > now() FROM moorline_cleanups")


async def test_each_hour_is_counted_once_however_many_count(database: Database, connection: Connection) -> None:
    await connection.execute(TURNS, 600)
    await asyncio.gather(*(roll_up(database) for _ in range(4)))
    until = await connection.fetchval("SELECT rolled_up_to FROM moorline_cleanups")
    assert timedelta(minutes=10) <= datetime.now(UTC) - until <= timedelta(minutes=71)
    over = await connection.fetchval("SELECT count(*) FROM conversation_turns WHERE committed_at < $1", until)
    assert dict((await connection.fetch(COUNTED))[0]) == {"turns": over, "tokens": over * 8}
    days = await connection.fetch("SELECT device_id, day, agent, model FROM conversation_days ORDER BY 1, 2, 3, 4")
    await connection.execute("SELECT moorline_recount('d' || n) FROM generate_series(0, 6) n")
    assert dict((await connection.fetch(COUNTED))[0]) == {"turns": over, "tokens": over * 8}
    assert (
        await connection.fetch("SELECT device_id, day, agent, model FROM conversation_days ORDER BY 1, 2, 3, 4") == days
    )


async def test_days_that_are_over_are_added_up_whatever_is_removed_or_counted_anew(
    database: Database, dsn: str, connection: Connection
) -> None:
    async def totals() -> int:
        found = await connection.fetch(TOTALS)
        assert found == await connection.fetch(ADDED_UP)
        return len(found)

    await connection.execute(TURNS, 7000)
    await connection.execute(
        "INSERT INTO conversation_states (device_id, last_turn_no, last_active_at)"
        " SELECT 'd' || n, 7000, now() - interval '1 day' FROM generate_series(0, 6) n"
    )
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        for device in ("d1", "d2", "d3"):
            for _ in range(30):
                await connection.fetchval("SELECT moorline_roll_up()")
            assert await totals() > 0
            assert await saver.erase(device)
            assert await totals() > 0
        await roll_up(database)
        whole = await totals()
        assert whole > 15
        await connection.execute(
            "UPDATE conversation_turns SET committed_at = committed_at - interval '3 days' WHERE device_id = 'd4'"
        )
        await connection.execute("SELECT moorline_recount('d' || n) FROM generate_series(4, 5) n")
        assert await totals() > whole
        assert await remove_older(database, days=2) > 0
        assert 0 < await totals() < whole
        for device in ("d0", "d4", "d5", "d6"):
            await saver.erase(device)
        assert await totals() == 0


async def test_an_erasure_beside_a_roll_up_leaves_nothing(database: Database, dsn: str, connection: Connection) -> None:
    """Whichever is first, the other waits: a roll-up that has read the turns would bring the device back."""
    await connection.execute(TURNS, 600)
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        async with connection.transaction():
            while await connection.fetchval("SELECT moorline_roll_up()"):
                pass
            erasing = asyncio.create_task(saver.erase("d1"))
            waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            async with asyncio.timeout(20):
                while not await execute(dsn, waits):
                    assert not erasing.done()
                    await asyncio.sleep(0.02)
        assert await erasing
    assert await execute(dsn, "SELECT FROM conversation_days WHERE device_id = 'd1'") == []
    assert len(await execute(dsn, "SELECT DISTINCT device_id FROM conversation_days")) == 6


async def test_retention_removes_figures_and_ended_sessions_of_its_days(
    database: Database, connection: Connection
) -> None:
    await connection.execute(TURNS, 600)
    await connection.execute("UPDATE conversation_turns SET committed_at = committed_at - interval '40 days'")
    await connection.execute(
        "INSERT INTO conversation_sessions SELECT 'd1', now() - make_interval(days => n), 0, 'hair',"
        " now() - make_interval(days => n + 1), 'released' FROM generate_series(1, 60) n"
    )
    await connection.execute(
        "INSERT INTO conversation_states (device_id, last_turn_no, last_active_at)"
        " SELECT 'd' || n, 600, now() - interval '40 days' FROM generate_series(0, 6) n"
    )
    await roll_up(database)
    assert (await connection.fetch(COUNTED))[0]["turns"] == 600
    assert await remove_older(database, days=30) > 0
    assert await connection.fetchval("SELECT count(*) FROM conversation_days") == 0
    assert await connection.fetchval("SELECT count(*) FROM conversation_turns") == 0
    assert await connection.fetchval("SELECT count(*) FROM conversation_sessions") in (29, 30)
    # Only the device that has figures left is still there.
    assert [row["device_id"] for row in await connection.fetch("SELECT device_id FROM conversation_states")] == ["d1"]
