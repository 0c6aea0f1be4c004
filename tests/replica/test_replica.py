"""What a streaming replica answers, and when the primary does instead."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from moorline import Moorline, Settings
from moorline.doctor.examination import examine
from moorline_agents.transport import rule_client
from moorline_checkpoint import replica as replicas
from moorline_checkpoint.database import Database
from moorline_checkpoint.replica import Readers
from moorline_migrations import SHIPPED

from ..runtime.conftest import agent, counting
from ..runtime.test_cli import in_a_process
from .conftest import Pair, fetchval

DEVICE = "d1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "RETRY", 0.2)
    monkeypatch.setattr("moorline_checkpoint.recent.WITHIN", 0.05)


def runtime(dsn: str, replica: str, *, max_lag: float = 60) -> Moorline:
    settings = Settings(database_url=dsn, replica_url=replica, replica_max_lag=max_lag)
    return Moorline(settings, agents=[agent("hair")], client=lambda: rule_client(counting))


@asynccontextmanager
async def paused(pair: Pair, dsn: str) -> AsyncIterator[None]:
    await pair.caught_up(dsn)
    await pair.replay(dsn, "pause")
    try:
        yield
    finally:
        await pair.replay(dsn, "resume")
        await pair.caught_up(dsn)


async def test_the_doctor_says_whether_the_replica_would_be_read(pair: Pair, dsn: str, other: str) -> None:
    async def seen(replica: str, max_lag: float = 60) -> str:
        settings = Settings(database_url=dsn, replica_url=replica, replica_max_lag=max_lag)
        [found] = [each for each in await examine(settings, SHIPPED) if each.name == "replica"]
        return f"{found.state}: {found.seen}"

    replica = pair.replica.same_database(dsn)
    # The primary writes a little to its log by itself, at any moment.
    assert re.fullmatch("ok: it is [0-9]{1,3} bytes behind", await seen(replica))
    assert await seen(pair.replica.same_database(other)) == "warn: it is a copy of another database"
    assert await seen(dsn) == "warn: it is no replica, but takes writes itself"
    async with paused(pair, dsn):
        await fetchval(dsn, "SELECT pg_logical_emit_message(true, 'test', 'something to replay')")
        await asyncio.sleep(1)
        assert (await seen(replica)).startswith("ok: it is ")
        assert re.fullmatch("warn: it is .+ s and [0-9,]+ bytes behind", await seen(replica, max_lag=0.5))


async def test_a_replica_answers_what_need_not_be_of_this_moment(pair: Pair, dsn: str) -> None:
    async with runtime(dsn, pair.replica.same_database(dsn)) as moorline:
        await moorline.run("hair one", {"device_id": DEVICE})
        async with paused(pair, dsn):
            await moorline.run("two", {"device_id": DEVICE})
            await moorline.run("hair one", {"device_id": "d2"})
            before = datetime.now(UTC)

            transcript = await moorline.transcript(DEVICE)
            assert [entry.texts for entry in transcript] == [("hair one",)]
            assert transcript.as_of is not None
            assert transcript[0].committed_at <= transcript.as_of < before
            stats = await moorline.stats()
            assert (stats.sessions["hair"].count, stats.as_of) == (1, transcript.as_of)
            figures = await moorline.stats(since="1d")
            assert (figures.figures.turns[0].turns, figures.now.as_of) == (1, transcript.as_of)
            letters = await moorline.dead_letters()
            assert (letters, letters.as_of) == ([], transcript.as_of)
            # Turns and the session are the primary's.
            assert await moorline.run("three", {"device_id": DEVICE}) == "hair 3: three"
            assert await moorline.session("d2") is not None

            environment = {"DATABASE_URL": dsn, "MOORLINE_REPLICA_URL": pair.replica.same_database(dsn)}
            listed, exported = await asyncio.gather(
                asyncio.to_thread(in_a_process, "sessions", **environment),
                asyncio.to_thread(in_a_process, "export", "--all", **environment),
            )
            assert [line.split("\t")[0] for line in listed.out.splitlines()] == [DEVICE]
            assert listed.err.startswith("As of ")
            rows = [json.loads(line) for line in exported.out.splitlines()]
            assert [row["devices"] for row in rows if row["kind"] == "conversation"] == [[DEVICE]]
            assert datetime.fromisoformat(rows[0]["exported_at"]) == transcript.as_of
        await asyncio.sleep(0.1)
        assert len(await moorline.transcript(DEVICE)) == 3


async def test_a_replica_that_is_too_far_behind_is_not_read(
    pair: Pair, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moorline.replica")
    async with runtime(dsn, pair.replica.same_database(dsn), max_lag=0.5) as moorline:
        await moorline.run("hair one", {"device_id": DEVICE})
        async with paused(pair, dsn):
            await moorline.run("two", {"device_id": DEVICE})
            await asyncio.sleep(0.6)
            for _ in range(5):
                transcript = await moorline.transcript(DEVICE)
                assert (len(transcript), transcript.as_of) == (2, None)
                await asyncio.sleep(0.06)
            (line,) = told(caplog)
            assert "The replica is not read, and the primary is asked instead: it is behind by" in line
        await asyncio.sleep(0.3)
        assert (await moorline.transcript(DEVICE)).as_of is not None
        assert told(caplog)[1:] == ["The replica can be read again."]


async def test_a_replica_that_has_everything_is_read_however_long_nothing_has_happened(pair: Pair, dsn: str) -> None:
    readers = Readers(Database(dsn), Database(pair.replica.same_database(dsn)), max_lag=0.2)
    await asyncio.sleep(0.5)
    await pair.caught_up(dsn)
    _, as_of = await readers.fit()
    assert as_of is not None
    assert datetime.now(UTC) - as_of < timedelta(seconds=0.2)
    await readers.close()


async def test_while_the_replica_is_down_the_primary_answers(
    pair: Pair, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moorline.replica")
    async with runtime(dsn, pair.replica.same_database(dsn)) as moorline:
        await moorline.run("hair one", {"device_id": DEVICE})
        await pair.caught_up(dsn)
        assert (await moorline.transcript(DEVICE)).as_of is not None
        await pair.replica.stop("immediate")
        try:
            for _ in range(4):
                assert len(await moorline.transcript(DEVICE)) == 1
                await asyncio.sleep(0.1)
        finally:
            await pair.replica.start()
        await asyncio.sleep(0.3)
        assert (await moorline.transcript(DEVICE)).as_of is not None
    assert [line[:28] for line in told(caplog)] == ["The replica is not read, and", "The replica can be read agai"]


async def test_a_replica_that_hangs_delays_a_read_by_two_seconds_at_most(pair: Pair, dsn: str) -> None:
    postmaster = int((pair.replica.disk / "pg" / "postmaster.pid").read_text().splitlines()[0])
    async with runtime(dsn, pair.replica.same_database(dsn)) as moorline:
        os.kill(postmaster, signal.SIGSTOP)
        try:
            async with asyncio.timeout(4):
                assert (await moorline.transcript(DEVICE)).as_of is None
        finally:
            os.kill(postmaster, signal.SIGCONT)


async def test_a_read_that_the_replica_breaks_off_is_asked_of_the_primary(pair: Pair, dsn: str) -> None:
    """As a replica does with a query that is in the way of what it has to replay."""
    readers = Readers(Database(dsn), Database(pair.replica.same_database(dsn)))
    asked: list[bool] = []

    async def ask(database: Database) -> bool:
        async with database.transaction() as connection:
            asked.append(await connection.fetchval("SELECT pg_is_in_recovery()"))
            if asked[-1]:
                await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid())")
        return asked[-1]

    assert await readers.read(ask) == (False, None)
    assert asked == [True, False]
    await readers.close()


@pytest.mark.parametrize("url", ["primary", "another database"])
async def test_what_is_no_replica_of_this_database_is_not_read(
    pair: Pair, dsn: str, other: str, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    wrong = dsn if url == "primary" else pair.replica.same_database(other)
    async with runtime(dsn, wrong) as moorline:
        assert (await moorline.transcript(DEVICE)).as_of is None
    (line,) = told(caplog)
    assert line.endswith("it follows no other server" if url == "primary" else "it is a copy of another database")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "moorline.replica"]
