"""The SQL of a session service that keeps its locks in conversation_states, as its runbook has it: in psql, from the
root of the repository, on tables of ours and on the service's own."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from tests.turns.runtimes import execute

from .conftest import PSQL

ROOT = Path(__file__).parents[2]

ADDED = """
ALTER TABLE conversation_states
ADD COLUMN active_agent VARCHAR(50),
ADD COLUMN locked_at TIMESTAMP WITH TIME ZONE,
ADD COLUMN session_ttl INTEGER NOT NULL DEFAULT 86400;
"""
ACTIVE = """
SELECT active_agent, COUNT(*) as count
FROM conversation_states
WHERE active_agent IS NOT NULL
GROUP BY active_agent;
"""
EXPIRED = """
SELECT COUNT(*) as expired_count
FROM conversation_states
WHERE active_agent IS NOT NULL
AND locked_at < NOW() - INTERVAL '24 hours';
"""
DURATION = """
SELECT
    active_agent,
    AVG(EXTRACT(EPOCH FROM (NOW() - locked_at))) as avg_duration_seconds
FROM conversation_states
WHERE active_agent IS NOT NULL
GROUP BY active_agent;
"""
SCRIPT = "\\i migrations/add_session_lock_fields.sql\n"
DESCRIBED = "\\d conversation_states\n"
GRANT = "GRANT ALL ON conversation_states TO your_user;"
INDEXES = (
    "CREATE INDEX idx_conversation_states_active_agent ON conversation_states(active_agent);",
    "CREATE INDEX idx_conversation_states_locked_at ON conversation_states(locked_at);",
)
EXPLAINED = "EXPLAIN ANALYZE SELECT * FROM conversation_states WHERE active_agent = 'scheduling';"

HELD = """
INSERT INTO conversation_states (device_id, active_agent, locked_at) VALUES
    ('a', 'scheduling', now() - interval '1 hour'),
    ('b', 'scheduling', now() - interval '3 hours'),
    ('c', 'billing', now() - interval '30 hours'),
    ('d', NULL, NULL);
"""
OWN_TABLE = """
CREATE TABLE conversation_states (
    id serial PRIMARY KEY,
    patient_profile_id varchar(64) NOT NULL UNIQUE
);
"""
TAKEN = """
INSERT INTO conversation_states (patient_profile_id, active_agent, locked_at, session_ttl)
VALUES ('device-123', 'scheduling', now(), 3600);
"""

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


def psql(dsn: str) -> Run:
    """Runs psql in the repository's root."""

    def run(stdin: str) -> "subprocess.CompletedProcess[str]":
        command = [str(PSQL), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", "--no-align", "--tuples-only", dsn]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT)

    return run


@pytest.fixture
def ours(dsn: str) -> Run:
    return psql(dsn)


@pytest.fixture
def theirs(empty_dsn: str) -> Run:
    run = psql(empty_dsn)
    assert run(OWN_TABLE).returncode == 0
    return run


def answer(done: "subprocess.CompletedProcess[str]") -> list[list[str]]:
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(line.split("|") for line in done.stdout.splitlines())


def test_the_three_questions_are_answered(ours: Run) -> None:
    assert answer(ours(HELD)) == []
    assert answer(ours(ACTIVE)) == [["billing", "1"], ["scheduling", "2"]]
    assert answer(ours(EXPIRED)) == [["1"]]
    lasted = {agent: float(seconds) for agent, seconds in answer(ours(DURATION))}
    assert lasted == {
        "scheduling": pytest.approx(2 * 3600, abs=60),
        "billing": pytest.approx(30 * 3600, abs=60),
    }


def test_the_columns_are_those_that_the_service_knows(ours: Run) -> None:
    columns = answer(ours(DESCRIBED))
    for known in (
        ["active_agent", "character varying(50)", "", "", ""],
        ["locked_at", "timestamp with time zone", "", "", ""],
        ["session_ttl", "integer", "", "not null", "86400"],
    ):
        assert known in columns


async def test_the_script_adds_the_columns_to_a_table_of_the_services_own(theirs: Run, empty_dsn: str) -> None:
    for _ in range(2):
        assert answer(theirs(SCRIPT)) == []
    assert answer(theirs(TAKEN)) == []
    connection = await asyncpg.connect(empty_dsn)
    try:
        row = await connection.fetchrow("SELECT device_id, session_ttl FROM conversation_states")
    finally:
        await connection.close()
    assert row is not None
    assert tuple(row) == ("device-123", 3600)


def test_columns_that_the_service_has_added_itself_stay(theirs: Run) -> None:
    assert answer(theirs(ADDED + TAKEN)) == []
    assert answer(theirs(SCRIPT)) == []
    assert answer(theirs("SELECT device_id, active_agent, session_ttl FROM conversation_states")) == [
        ["device-123", "scheduling", "3600"]
    ]
    assert theirs(ADDED).stderr.startswith("ERROR:  column ")


def test_the_script_leaves_a_table_of_ours_as_it_is(ours: Run) -> None:
    before = answer(ours(DESCRIBED))
    assert answer(ours(SCRIPT)) == []
    assert answer(ours(DESCRIBED)) == before


async def test_who_is_granted_the_table_takes_and_drops_locks_as_the_service_did(ours: Run, dsn: str) -> None:
    role = "DO $$BEGIN CREATE ROLE your_user LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END$$;"
    assert answer(ours(role)) == []
    assert answer(ours(GRANT)) == []
    lesser = urlsplit(dsn)._replace(netloc="your_user@").geturl()
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        taken = "INSERT INTO conversation_states (device_id, active_agent, locked_at) VALUES ('d1', 'billing', now())"
        await execute(lesser, taken)
        assert await saver.get_session_lock("d1") == "billing"
        await execute(lesser, "UPDATE conversation_states SET active_agent = NULL, locked_at = NULL")
        assert await saver.get_session_lock("d1") is None
    await execute(dsn, "REVOKE ALL ON conversation_states FROM your_user")


def test_the_indexes_are_there_already_and_used(ours: Run) -> None:
    for index in INDEXES:
        refused = ours(index)
        assert refused.returncode != 0
        assert "already exists" in refused.stderr
    assert answer(ours(HELD)) == []
    plan = ours(f"SET enable_seqscan = off; {EXPLAINED}").stdout
    assert "idx_conversation_states_active_agent" in plan
    assert "Execution Time" in plan
