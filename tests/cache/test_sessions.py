"""Readers get from Redis what was committed, never anything older over newer, and else what PostgreSQL says."""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from moorline import Moorline, Settings
from moorline.cache import SessionReader, entries, server
from moorline.cache import reader as reading_from
from moorline.cache import writer as writing
from moorline.cache.server import PATIENCE
from moorline.errors import ConfigurationError, SchemaMismatch
from moorline_checkpoint.sessions import Session
from tests.http.asking import asking, moorline_on
from tests.redis_server import RedisProcess, running_redis, slow_line
from tests.turns.runtimes import Stall, execute, runtime, say


@asynccontextmanager
async def reading(dsn: str, url: str | None) -> AsyncIterator[SessionReader]:
    async with SessionReader(Settings(database_url=dsn, redis_url=url)) as reader:
        yield reader


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def entry_keys(server: RedisProcess) -> list[str]:
    with server.client() as client:
        keys = cast("list[bytes]", client.keys("moorline:*"))
    return sorted(key.decode() for key in keys if key.count(b":") == 1)


async def written(moorline: Moorline) -> None:
    """Returns when nothing waits to be written to Redis."""
    writer = moorline._backend.writer
    assert writer is not None
    await until(lambda: not writer._changed and not writer._woken)
    await asyncio.sleep(0.05)


async def from_redis(reader: SessionReader, device: str = "d1") -> Session | None:
    """What Redis alone says."""
    assert reader._backend is not None
    assert reader._backend.writer is not None
    return await reader._written(reader._backend.writer, device)


async def test_a_committed_session_is_read_from_redis_with_its_times(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await until(lambda: bool(entry_keys(redis)))
        found = await from_redis(reader)
        assert found is not None
        assert found == await moorline.session("d1") == await reader.session("d1")
        with redis.client() as client:
            left = cast("int", client.pttl(entry_keys(redis)[0])) / 1000
        assert 86400 - 60 < left <= 86400


async def test_a_reader_needs_no_database_for_what_is_in_redis(
    dsn: str, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 5.0)  # a busy machine takes longer than a reader waits
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)  # otherwise the reader would look it up, and write it as well
        assert await reader.session("d1") is not None  # knows the key now
        await execute(dsn, "ALTER TABLE conversation_states RENAME TO elsewhere")
        try:
            assert await reader.session("d1") is not None
            with pytest.raises(SchemaMismatch):
                await reader.session("d2")
        finally:
            await execute(dsn, "ALTER TABLE elsewhere RENAME TO conversation_states")


async def test_what_changes_outside_turns_is_told_too(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        saver = moorline._backend.saver
        await saver.set_session_lock("d1", "desk", ttl=100)
        await until(lambda: bool(entry_keys(redis)))
        held = await from_redis(reader)
        assert held is not None
        assert held == await saver.get_session("d1")
        await saver.clear_session_lock("d1")
        await until(lambda: not entry_keys(redis))
        assert await reader.session("d1") is None


async def test_an_erasure_deletes_the_entry_and_a_late_write_does_not_bring_it_back(
    dsn: str, redis: RedisProcess
) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)
        late = await _arguments(moorline, "d1")
        await moorline.erase("d1")
        await until(lambda: not entry_keys(redis))
        assert await _tell(moorline, "d1", late) == 0
        assert entry_keys(redis) == []
        assert await reader.session("d1") is None


async def test_older_never_stands_over_newer_and_what_meets_a_higher_fence_deletes(
    dsn: str, redis: RedisProcess
) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)
        older = await _arguments(moorline, "d1")
        await say(moorline, "hello again")
        await written(moorline)
        newer = await _arguments(moorline, "d1")
        assert older[0] < newer[0]
        assert await from_redis(reader) is not None
        assert await _tell(moorline, "d1", older) == 0
        assert entry_keys(redis) == []
        assert await _tell(moorline, "d1", older) == 0, "nothing older comes back once the entry is gone"
        assert await _tell(moorline, "d1", newer) == 1


async def test_with_equal_fences_what_was_read_later_stands(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline:
        saver = moorline._backend.saver
        await saver.set_session_lock("d1", "desk")
        before = await _arguments(moorline, "d1")
        await saver.clear_session_lock("d1")
        after = await _arguments(moorline, "d1")
        assert before[0] == after[0]
        await written(moorline)
        assert await _tell(moorline, "d1", before) == 0
        assert entry_keys(redis) == []


async def test_an_address_that_leads_to_another_conversation_is_not_in_redis(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline:
        await say(moorline, "hello")
        await until(lambda: bool(entry_keys(redis)))
        await execute(dsn, "UPDATE conversation_states SET leads_to = 'd2' WHERE device_id = 'd1'")
        moorline._backend.saver.database.lock_changed("d1")
        await until(lambda: not entry_keys(redis))


async def test_who_names_an_address_changes_the_entry_of_its_conversation(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello", device="d2")
        await written(moorline)
        await execute(dsn, "INSERT INTO conversation_states (device_id, leads_to) VALUES ('d1', 'd2')")
        await moorline._backend.saver.set_session_lock("d1", "other")
        await written(moorline)
        found = await from_redis(reader, "d2")
        assert found is not None
        assert found.active_agent == "other"


async def test_an_entry_ends_with_its_session(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url, default_session_ttl=1) as moorline:
        await say(moorline, "hello")
        await until(lambda: bool(entry_keys(redis)))
        await until(lambda: not entry_keys(redis))


async def test_redis_does_not_learn_of_devices(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline:
        await say(moorline, "hello", device="whatsapp-491701234567")
        await moorline.erase("whatsapp-491701234567")
        await written(moorline)
        with redis.client() as client:
            stored = [(key, client.type(key)) for key in cast("list[bytes]", client.keys("*"))]
        assert stored
        assert b"4917" not in b"".join(key for key, _ in stored)


async def test_a_database_never_reads_what_another_one_wrote(dsn: str, empty_dsn: str, redis: RedisProcess) -> None:
    from moorline_migrations import SHIPPED, migrate

    await migrate(empty_dsn, components=SHIPPED)
    await execute(empty_dsn, "UPDATE moorline_keys SET key = sha256(key)")
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(empty_dsn, redis.url) as other:
        await say(moorline, "hello")
        await written(moorline)
        assert await other.session("d1") is None


async def test_a_miss_is_filled_by_its_reader(dsn: str, redis: RedisProcess) -> None:
    async with runtime(dsn) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        assert entry_keys(redis) == []
        assert await reader.session("d1") is not None
        await until(lambda: bool(entry_keys(redis)))
        assert await from_redis(reader) == await moorline.session("d1")


async def test_an_entry_from_before_a_restart_is_not_believed(dsn: str) -> None:
    with running_redis() as redis:
        async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
            await say(moorline, "hello")
            await written(moorline)
            copy = redis.copy()
            await moorline._backend.saver.set_session_lock("d1", "other")
            await written(moorline)
            redis.roll_back(copy)
            assert len(entry_keys(redis)) == 1
            await asyncio.sleep(1.1)  # a connection is lost, and Redis left alone for a while
            for _ in range(3):
                found = await reader.session("d1")
                assert found is not None
                assert found.active_agent == "other"
                await asyncio.sleep(0.6)


async def test_an_entry_is_believed_for_some_minutes_only(
    dsn: str, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between its commit and its write leaves the entry of before."""
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)
        moorline._backend.saver.database.lock_watchers = ()
        await moorline._backend.saver.set_session_lock("d1", "other")
        behind = await reader.session("d1")
        assert behind is not None
        assert behind.active_agent == "desk"
        monkeypatch.setattr(reading_from, "BELIEVED", -1)
        found = await reader.session("d1")
        assert found is not None
        assert found.active_agent == "other"


async def test_what_is_left_is_written_when_a_runtime_is_closed(dsn: str, redis: RedisProcess) -> None:
    async with reading(dsn, redis.url) as reader:
        async with runtime(dsn, redis_url=redis.url) as moorline:
            for number in range(30):
                await say(moorline, "hello", device=f"d{number}")
        assert all([await from_redis(reader, f"d{number}") is not None for number in range(30)])


async def test_closing_ends_although_the_client_takes_a_cancellation_for_its_own(
    dsn: str, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py does now and then while it gives a connection back."""
    swallowed = 0
    write = writing.SessionWriter._write

    async def swallowing(self: writing.SessionWriter) -> None:
        nonlocal swallowed
        try:
            if not swallowed:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed += 1
        await write(self)

    monkeypatch.setattr(writing.SessionWriter, "_write", swallowing)
    async with reading(dsn, redis.url) as reader, asyncio.timeout(10):
        async with runtime(dsn, redis_url=redis.url) as moorline:
            await say(moorline, "hello")
            await asyncio.sleep(0.1)
        assert swallowed == 1
        assert await from_redis(reader) is not None


async def test_while_redis_is_gone_postgresql_answers_and_that_is_said_once(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moorline.cache")
    with running_redis() as redis:
        async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
            await say(moorline, "hello")
            await written(moorline)
            redis.kill()
            for number in range(20):
                found = await reader.session("d1")
                assert found is not None
                await say(moorline, f"hello {number}")
            await moorline._backend.saver.set_session_lock("d1", "other")
            await asyncio.sleep(0.2)
            warned = [record for record in caplog.records if record.levelno == logging.WARNING]
            assert len(warned) == 2, "one by the writer, one by the reader"
            assert "PostgreSQL" in warned[0].getMessage()
            redis.start()
            await until(lambda: bool(entry_keys(redis)))
            assert (await moorline.session("d1")) == await reader.session("d1")
            await asyncio.sleep(1.1)
            assert await from_redis(reader) == await moorline.session("d1")


async def test_what_could_not_be_written_is_written_when_redis_is_reached_again(dsn: str, redis: RedisProcess) -> None:
    """The line is cut for the writer only: what readers find meanwhile is what was before."""
    async with (
        slow_line(redis.port) as line,
        runtime(dsn, redis_url=line.url) as moorline,
        reading(dsn, redis.url) as reader,
    ):
        await say(moorline, "hello")
        await written(moorline)
        line.held.clear()
        await moorline._backend.saver.clear_session_lock("d1")
        await asyncio.sleep(0.1)
        line.held.set()
        line.cut()
        await until(lambda: not entry_keys(redis))
        assert await reader.session("d1") is None


async def test_if_too_much_was_missed_nothing_older_is_believed(
    dsn: str, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MOST", 3)
    async with (
        slow_line(redis.port) as line,
        runtime(dsn, redis_url=line.url) as moorline,
        reading(dsn, redis.url) as reader,
    ):
        for number in range(5):
            await say(moorline, "hello", device=f"d{number}")
            await written(moorline)
        assert await from_redis(reader, "d0") is not None
        line.held.clear()
        for number in range(5):
            await moorline._backend.saver.set_session_lock(f"d{number}", "other")
        line.held.set()
        line.cut()
        await written(moorline)
        await asyncio.sleep(1.2)
        for number in range(5):
            found = await reader.session(f"d{number}")
            assert found is not None
            assert found.active_agent == "other"


@pytest.mark.parametrize("delay", [0.3, 30.0])
async def test_nobody_waits_for_a_slow_redis(dsn: str, redis: RedisProcess, delay: float) -> None:
    async with (
        slow_line(redis.port) as line,
        runtime(dsn, redis_url=line.url) as moorline,
        reading(dsn, line.url) as reader,
    ):
        await say(moorline, "hello")
        assert await reader.session("d1") is not None
        line.delay = delay
        clock = asyncio.get_running_loop().time
        took = []
        for number in range(10):
            began = clock()
            assert await reader.session("d1") is not None
            took.append(clock() - began)
            await say(moorline, f"hello {number}")
        assert sorted(took)[5] < 0.02, "it is left alone after the first time"
        assert max(took) < PATIENCE + 0.25


PASSWORD = "right"  # noqa: S105 - of a server that lives for a test

RUBBISH: dict[str, Callable[["Redis", str], Any]] = {
    "another type": lambda client, key: (client.delete(key), client.rpush(key, "x")),
    "no JSON": lambda client, key: client.hset(key, "session", b"\xff\xfe{"),
    "no object": lambda client, key: client.hset(key, "session", "[1, 2]"),
    "no agent": lambda client, key: client.hset(key, "session", '{"agent": 5, "since": "x", "until": null}'),
    "no zone": lambda client, key: client.hset(
        key, "session", '{"agent": "desk", "since": "2026-01-01", "until": "2026-01-02"}'
    ),
    "deep": lambda client, key: client.hset(key, "session", "[" * 100_000),
}


@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_in_redis_is_no_answer(
    dsn: str, redis: RedisProcess, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)
        with redis.client() as client:
            RUBBISH[kind](client, entry_keys(redis)[0])
        for _ in range(3):
            assert await reader.session("d1") == await moorline.session("d1")
            with redis.client() as client:
                RUBBISH[kind](client, entry_keys(redis)[0])
        said = [record.getMessage() for record in caplog.records if record.name == "moorline.cache"]
        assert len(said) == 1
        assert "Redis holds" in said[0]
        await say(moorline, "hello again")
        await written(moorline)
        assert await from_redis(reader) == await moorline.session("d1")


@pytest.mark.parametrize(
    "spoil", ["set {floor} x", "set {floor} x ex 100", "hset {floor} fence x moment y", "lpush {epoch} x"]
)
async def test_rubbish_beside_an_entry_is_written_over(dsn: str, redis: RedisProcess, spoil: str) -> None:
    async with runtime(dsn, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        assert moorline._backend.writer is not None
        keys = await moorline._backend.writer.keys()
        with redis.client() as client:
            client.execute_command(*spoil.format(floor=keys.floor("d1"), epoch=keys.epoch).split())
        await say(moorline, "hello")
        await written(moorline)
        assert await from_redis(reader) == await moorline.session("d1")


async def test_a_server_that_is_no_redis_is_no_harm(dsn: str, redis: RedisProcess) -> None:
    async with slow_line(redis.port) as line:
        line.garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        async with runtime(dsn, redis_url=line.url) as moorline, reading(dsn, line.url) as reader:
            await say(moorline, "hello")
            for _ in range(3):
                assert await reader.session("d1") == await moorline.session("d1")


async def test_a_wrong_password_is_said_and_everything_goes_on(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with running_redis(password=PASSWORD) as redis:
        wrong = redis.url.replace(PASSWORD, "wrong")
        async with runtime(dsn, redis_url=wrong) as moorline, reading(dsn, wrong) as reader:
            await say(moorline, "hello")
            assert await reader.session("d1") == await moorline.session("d1")
            await asyncio.sleep(0.1)
    said = " ".join(record.getMessage() for record in caplog.records if record.name == "moorline.cache")
    assert "refuses the user or the password in MOORLINE_REDIS_URL" in said
    assert "wrong" not in said


async def test_the_documented_rights_are_enough(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    told = Path(__file__).parents[2].joinpath("docs", "redis.md").read_text()
    rights = next(line for line in told.replace("\n", " ").split("`") if line.startswith("+ping")).split()
    with running_redis() as redis:
        with redis.client() as client:
            client.execute_command("ACL", "SETUSER", "moorline", "on", ">hush", "~moorline:*", *rights)
        url = redis.url.replace("redis://", "redis://moorline:hush@")
        async with asking(moorline_on(dsn, redis_url=url), rate_device="1/hour", headers={"X-Device-ID": "d1"}) as app:
            assert [(await app.get("/v1/session")).status_code for _ in range(2)] == [200, 429]
        async with runtime(dsn, redis_url=url) as moorline, reading(dsn, url) as reader:
            await say(moorline, "hello")
            await written(moorline)
            assert await from_redis(reader) == await moorline.session("d1")
            await moorline.erase("d1")
            await written(moorline)
            assert entry_keys(redis) == []
            assert moorline._backend.writer is not None
            moorline._backend.writer._missed = True
            await say(moorline, "hello")
            await written(moorline)
            assert await from_redis(reader) is not None
    assert [record for record in caplog.records if record.name == "moorline.cache"] == []


@pytest.mark.parametrize("url", ["redis://host/0?socket_timeout=soon", "redis://host/0?no_such_option=5"])
async def test_a_url_that_the_client_cannot_read_is_a_wrong_setting(dsn: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match="MOORLINE_REDIS_URL"):
        async with reading(dsn, url):
            pass


async def test_without_the_client_the_extra_is_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'moorline[redis]'")):
        async with reading(dsn, "redis://host/0"):
            pass


async def test_without_a_url_a_reader_asks_postgresql(dsn: str) -> None:
    async with runtime(dsn) as moorline, reading(dsn, None) as reader:
        await say(moorline, "hello")
        assert await reader.session("d1") == await moorline.session("d1")
        assert moorline._backend.saver.database.lock_watchers == ()


async def test_an_open_turn_is_read_as_committed(dsn: str, redis: RedisProcess) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "wait")
    async with runtime(dsn, stall, redis_url=redis.url) as moorline, reading(dsn, redis.url) as reader:
        await say(moorline, "hello")
        await written(moorline)
        before = await reader.session("d1")
        running = asyncio.create_task(say(moorline, "wait"))
        await stall.reached.wait()
        assert await reader.session("d1") == before
        stall.go_on.set()
        await running
        await written(moorline)
        after = await from_redis(reader)
        assert after is not None
        assert before is not None
        assert after.locked_at == before.locked_at
        assert after.expires_at > before.expires_at


async def _arguments(moorline: Moorline, device: str) -> tuple[Any, ...]:
    from moorline_checkpoint.lock_versions import lock_versions

    [version] = await lock_versions(moorline._backend.saver.database, [device])
    return entries.arguments(version, epoch="0")


async def _tell(moorline: Moorline, device: str, arguments: tuple[Any, ...]) -> int:
    writer = moorline._backend.writer
    assert writer is not None
    keys = await writer.keys()
    names = [keys.entry(device), keys.floor(device), keys.epoch]
    return int(await writer._tell(keys=names, args=arguments))
