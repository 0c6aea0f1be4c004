"""An export that the replica breaks off is begun again on the primary, or says that it is not whole."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorline import Settings
from moorline.errors import BadExport
from moorline.moving.cli import export_to
from moorline_migrations import SHIPPED

from ..moving.moves import execute, exported, imported
from ..runtime.test_cli import PROGRAM
from .conftest import Pair, fetchval

DEVICES = 300

FILL = """
INSERT INTO conversation_turns (device_id, turn_no, claim_id, fence, reply, status, attempts, started_at)
    SELECT 'd' || d, 1, gen_random_uuid(), 1, repeat('x', 2000), 'done', 1, now() FROM generate_series(1, $1::integer) d
"""

EXPORTING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""
END = EXPORTING.replace("count(*)", "pg_terminate_backend(pid)")


async def end_its_backend(pair: Pair, dsn: str) -> None:
    """As a replica does that is stopped."""
    await execute(pair.replica.same_database(dsn), END)


async def be_in_the_way(pair: Pair, dsn: str) -> None:
    """Lets the replica replay that rows are gone which the export still sees."""
    await execute(dsn, "DELETE FROM conversation_turns WHERE device_id = 'gone'")
    await execute(dsn, "VACUUM conversation_turns")
    await pair.caught_up(dsn)


Break = Callable[[Pair, str], Awaitable[None]]


@pytest.fixture
async def filled(pair: Pair, dsn: str) -> str:
    await execute(dsn, FILL, DEVICES)
    await execute(dsn, FILL.replace("'d' || d", "'gone'"), 1)
    await pair.caught_up(dsn)
    return dsn


@asynccontextmanager
async def impatient_replica(pair: Pair) -> AsyncIterator[None]:
    """One that ends at once what is in the way of what it has to replay."""
    server = pair.replica.same_database("//server/postgres")
    await execute(server, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await execute(server, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        await execute(server, "ALTER SYSTEM RESET max_standby_streaming_delay")
        await execute(server, "SELECT pg_reload_conf()")


@pytest.mark.parametrize("broken", [end_its_backend, be_in_the_way])
async def test_an_export_into_a_file_is_begun_again_on_the_primary(
    pair: Pair, filled: str, tmp_path: Path, broken: Break, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "all.jsonl"
    settings = Settings(database_url=filled, replica_url=pair.replica.same_database(filled))
    async with impatient_replica(pair):
        exporting = asyncio.create_task(export_to(file, settings=settings, components=SHIPPED, device_id=None))
        while not (file.exists() and file.stat().st_size):  # noqa: ASYNC110 - it is written elsewhere
            await asyncio.sleep(0)
        await broken(pair, filled)
        counts = await exporting
    assert "the primary is asked instead" in caplog.text
    first, *rest = file.read_bytes().splitlines()
    assert rest == (await exported(filled)).splitlines()[1:]
    assert json.loads(first)["kind"] == "export"
    assert counts.conversations == DEVICES + (broken is end_its_backend)


async def test_an_export_that_fails_before_its_first_line_comes_from_the_primary(pair: Pair, filled: str) -> None:
    await execute(filled, "DROP ROLE IF EXISTS stranger")
    await execute(filled, "CREATE ROLE stranger LOGIN")
    await execute(filled, "GRANT SELECT ON moorline_keys TO stranger")
    await pair.caught_up(filled)
    replica = pair.replica.same_database(filled).replace("postgres@", "stranger@")
    done = await asyncio.to_thread(exporting_to_a_pipe(filled, replica).communicate, timeout=60)
    assert done[0].splitlines()[1:] == (await exported(filled)).splitlines()[1:]
    assert b"The role lacks a right" in done[1]


async def test_an_export_of_which_lines_went_out_says_that_it_is_not_whole(pair: Pair, filled: str) -> None:
    process = exporting_to_a_pipe(filled, pair.replica.same_database(filled))
    assert process.stdout is not None
    opening = await asyncio.to_thread(process.stdout.readline)
    # Nobody reads on, so that the process stops in the middle.
    replica = pair.replica.same_database(filled)
    while not await fetchval(replica, EXPORTING):  # noqa: ASYNC110 - the server cannot call us
        await asyncio.sleep(0.02)
    await end_its_backend(pair, filled)
    rest, told = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert b"throw it away and export again" in told
    assert b"the primary is asked instead" not in told
    with pytest.raises(BadExport, match="cut off"):
        await imported(filled, opening + rest)


def exporting_to_a_pipe(dsn: str, replica: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"DATABASE_URL": dsn, "MOORLINE_REPLICA_URL": replica}
    command = [PROGRAM, "export", "--all"]
    return subprocess.Popen(command, env=environment, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
