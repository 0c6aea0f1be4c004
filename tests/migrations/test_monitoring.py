"""The queries about locks in an operator's runbook."""

import asyncpg
import pytest

AGENTS = """
INSERT INTO conversation_states (device_id, active_agent, locked_at, last_active_at, session_ttl) VALUES
    ('a', 'scheduling', now() - interval '1 hour', now(), 60),
    ('b', 'scheduling', now() - interval '3 hours', NULL, 60),
    ('c', 'billing', now() - interval '30 hours', now() - interval '29 hours', 86400),
    ('d', 'billing', now() - interval '30 hours', now(), 86400),
    ('e', NULL, NULL, now(), 86400)
"""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            "SELECT active_agent, COUNT(*) AS count FROM conversation_states"
            " WHERE active_agent IS NOT NULL GROUP BY active_agent;",
            {"scheduling": 2, "billing": 2},
        ),
        (
            "SELECT active_agent, COUNT(*) AS count FROM conversation_states"
            " WHERE active_agent IS NOT NULL AND locked_at < NOW() - INTERVAL '24 hours' GROUP BY active_agent;",
            {"billing": 2},
        ),
        (
            "SELECT active_agent, AVG(EXTRACT(EPOCH FROM (NOW() - locked_at))) AS count FROM conversation_states"
            " WHERE active_agent IS NOT NULL GROUP BY active_agent;",
            {"scheduling": pytest.approx(7200, abs=60), "billing": pytest.approx(108_000, abs=60)},
        ),
    ],
)
async def test_the_questions_run_as_they_stand(dsn: str, question: str, answer: dict[str, object]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(AGENTS)
        rows = await connection.fetch(question)
    finally:
        await connection.close()
    assert {row["active_agent"]: float(row["count"]) for row in rows} == answer


async def test_expired_sessions_are_those_past_their_time(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(AGENTS)
        rows = await connection.fetch(
            "SELECT device_id, active_agent, expired_at < now() AS past, expired_at - locked_at AS held"
            " FROM expired_sessions ORDER BY device_id"
        )
    finally:
        await connection.close()
    assert [(row["device_id"], row["active_agent"], row["past"], row["held"].total_seconds()) for row in rows] == [
        ("b", "scheduling", True, 60),
        ("c", "billing", True, 25 * 3600),
    ]
