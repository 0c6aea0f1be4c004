"""While the database takes no connections, attempts to connect are few, and callers are told at once."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moorline_checkpoint import checkpoint_store
from moorline_checkpoint.backoff import FIRST, LONGEST, Backoff
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import ConfigurationError, StoreUnavailable
from tests.checkpoint.checkpoints import config
from tests.faults.proxy import proxied


@pytest.fixture
def refusing_dsn() -> str:
    """Nobody listens on this port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


async def pauses(dsn: str, failures: int) -> list[float]:
    """Seconds that have to pass after each number of failures."""
    backoff, found = Backoff(), []
    for _ in range(failures):
        with pytest.raises(OSError, match="Connect call failed"):
            await backoff.connect(dsn)
        started = time.monotonic()
        await backoff.pause()
        found.append(time.monotonic() - started)
    return found


async def test_pauses_grow_up_to_a_limit_and_processes_fall_out_of_step(refusing_dsn: str) -> None:
    several = await asyncio.gather(*(pauses(refusing_dsn, 6) for _ in range(3)))
    apart = 0.0
    for number, found in enumerate(zip(*several, strict=True)):
        longest = min(FIRST * 2**number, LONGEST)
        assert min(found) >= longest * 0.3  # half of it, less the time to connect
        apart = max(apart, (max(found) - min(found)) / longest)
    assert apart > 0.1  # by chance it is less in one of a million runs


async def test_until_the_next_attempt_one_is_told_of_the_last(refusing_dsn: str) -> None:
    backoff = Backoff()
    with pytest.raises(OSError, match="Connect call failed"):
        await backoff.connect(refusing_dsn)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await backoff.connect(refusing_dsn)
    await backoff.pause()
    with pytest.raises(OSError, match="Connect call failed"):
        await backoff.connect(refusing_dsn)


async def test_a_success_ends_the_backing_off(dsn: str, refusing_dsn: str) -> None:
    backoff = Backoff()
    for _ in range(3):
        await backoff.pause()
        with pytest.raises(OSError, match="Connect call failed"):
            await backoff.connect(refusing_dsn)
    await backoff.pause()
    for _ in range(2):
        await (await backoff.connect(dsn)).close()
    with pytest.raises(OSError, match="Connect call failed"):
        await backoff.connect(refusing_dsn)
    started = time.monotonic()
    await backoff.pause()
    assert time.monotonic() - started < FIRST + 0.1


async def test_a_mistake_of_configuration_is_not_waited_for(dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn.replace("test_", "no_")) as saver:
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                await saver.aget_tuple(config("device"))


@asynccontextmanager
async def slamming() -> AsyncIterator[tuple[str, list[float]]]:
    """A server that closes every connection at once, and the times at which it did."""
    attempts: list[float] = []

    def slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(time.monotonic())
        writer.transport.abort()

    async with await asyncio.start_server(slam, "127.0.0.1", 0) as server:
        yield f"postgresql://postgres@127.0.0.1:{server.sockets[0].getsockname()[1]}/d?sslmode=disable", attempts


async def test_many_callers_make_few_attempts_and_none_waits_long() -> None:
    waited: list[float] = []

    async def call(saver: DeviceCheckpointer) -> None:
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await saver.aget_tuple(config("device"))
            waited.append(time.monotonic() - started)

    async with slamming() as (dsn, attempts), DeviceCheckpointer.from_conn_string(dsn, pool_size=5) as saver:
        await asyncio.gather(*(call(saver) for _ in range(200)))
    assert len(waited) == 600
    assert max(waited) < 2 * LONGEST + 1
    assert len(attempts) <= 5 * 12  # at most five at a time


async def test_tasks_that_wait_to_ask_are_told_with_those_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_store, "MEMBERS", 5)
    async with slamming() as (dsn, _), DeviceCheckpointer.from_conn_string(dsn) as saver:
        for _ in range(3):
            started = time.monotonic()
            outcomes = await asyncio.gather(
                *(saver.aget_tuple(config(f"{n}")) for n in range(100)), return_exceptions=True
            )
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
            # One batch after another would take twenty times as long as one.
            assert time.monotonic() - started < 5 * LONGEST


async def test_a_database_that_is_back_is_noticed_soon(dsn: str) -> None:
    async with proxied(dsn) as proxy, DeviceCheckpointer.from_conn_string(proxy.dsn) as saver:
        async with proxy.refusing():
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                with pytest.raises(StoreUnavailable):
                    await saver.aget_tuple(config("device"))
        started = time.monotonic()
        assert await saver.aget_tuple(config("device")) is None
        assert time.monotonic() - started < LONGEST + 1
