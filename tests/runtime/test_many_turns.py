"""Figures of ten million turns are there in seconds, and a cleanup keeps up with them."""

from __future__ import annotations

import time
from datetime import timedelta

import asyncpg
import pytest

from moorline_checkpoint.cleanup import roll_up
from moorline_checkpoint.database import Database
from moorline_checkpoint.figures import figures

DAYS = 30

TURNS = """
INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, agent, reply, usage, status, attempts, started_at,
    committed_at)
SELECT 'device-' || n * 7919 % $2::bigint, n, '6f9619ff-8b86-4d01-b42d-00cf4fc964ff', n,
    CASE WHEN n % 4 < 2 THEN 'scheduling' WHEN n % 4 = 2 THEN 'billing' END, repeat('A reply of some length. ', 8),
    '{"gpt-4.1-mini": {"scheduling": [812, 40], "route": [200, 6]}}', 'done', 1,
    now() - make_interval(days => $3::integer) * (1 - n / $1::double precision),
    now() - make_interval(days => $3::integer) * (1 - n / $1::double precision)
FROM generate_series(1, $1::bigint) n
"""
SESSIONS = """
INSERT INTO conversation_sessions (device_id, ended_at, position, agent, locked_at, why)
SELECT 'device-' || n * 7919 % $2::bigint, at, 0, 'scheduling', at - make_interval(secs => n % 3600),
    CASE WHEN n % 3 = 0 THEN 'expired' ELSE 'released' END
FROM (
    SELECT n, now() - make_interval(days => $3::integer) * (1 - n / $1::double precision) AS at
    FROM generate_series(1, $1::bigint) n
) s
"""
SIZES = """
SELECT pg_total_relation_size('conversation_turns') AS turns, pg_total_relation_size('conversation_days') AS days,
    pg_relation_size('conversation_turns_committed_at') AS brin,
    pg_total_relation_size('conversation_sessions') AS sessions
"""
BY_HAND = """
SELECT count(*) AS turns, count(DISTINCT ((committed_at AT TIME ZONE 'UTC')::date, device_id)) AS people
FROM conversation_turns WHERE committed_at >= $1
"""


@pytest.mark.parametrize(
    ("turns", "within"), [(20_000, 10.0), pytest.param(10_000_000, 5.0, marks=pytest.mark.laboratory)]
)
async def test_figures_of_many_turns_are_there_in_seconds(
    dsn: str, turns: int, within: float, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = await asyncpg.connect(dsn)
    database = Database(dsn)
    try:
        await connection.execute(TURNS, turns, turns // 100, DAYS)
        await connection.execute(SESSIONS, turns // 5, turns // 100, DAYS)
        await connection.execute("VACUUM ANALYZE conversation_turns, conversation_sessions")
        begun = time.monotonic()
        await roll_up(database)
        rolled_up = time.monotonic() - begun
        await connection.execute("VACUUM ANALYZE conversation_days")
        begun = time.monotonic()
        found = await figures(database, timedelta(days=DAYS))
        asked = time.monotonic() - begun
        begun = time.monotonic()
        await figures(database, timedelta(days=1))
        of_a_day = time.monotonic() - begun
        by_hand = await connection.fetchrow(BY_HAND, found.since)
        sizes = await connection.fetchrow(SIZES)
        assert by_hand is not None
        assert sizes is not None
    finally:
        await database.close()
        await connection.close()
    assert sum(each.turns for each in found.days) == by_hand["turns"]
    assert sum(each.people for each in found.days) == by_hand["people"]
    assert sum(each.input_tokens for each in found.tokens) == by_hand["turns"] * 1012
    assert found.sessions.ended["released"] > turns / 10
    assert asked < within
    if turns < 1_000_000:
        return
    with capsys.disabled():
        print(  # noqa: T201 - the figures that the laboratory is asked for
            f"\n{turns:,} turns, {DAYS} days in {asked:.1f} s, one day in {of_a_day:.2f} s, rolled up in"
            f" {rolled_up:.0f} s; MB: {', '.join(f'{name} {size / 1e6:.1f}' for name, size in sizes.items())}"
        )
