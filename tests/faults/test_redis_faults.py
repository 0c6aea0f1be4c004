"""Redis is gone, slow, silent, emptied, set back and filled with rubbish while turns run: nothing is violated, no turn
waits for it, and in the end readers get what PostgreSQL has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from moorline import Settings
from moorline.cache import SessionReader
from moorline_checkpoint.sessions import Session
from tests.faults.conftest import Report
from tests.faults.laboratory import Laboratory, verify
from tests.faults.test_faults import LEASE_SECONDS, devices
from tests.faults.worker import chance_of
from tests.redis_server import REDIS, RedisProcess, SlowLine, running_redis, slow_line

NAMES = devices(6)

AT_MOST = 0.05
"""Seconds that a turn may wait for Redis."""


@dataclass(frozen=True)
class Struck:
    """What a fault strikes."""

    redis: RedisProcess
    line: SlowLine
    chance: Random

    async def spell(self) -> None:
        await asyncio.sleep(0.2 + 0.3 * self.chance.random())


async def gone(struck: Struck) -> None:
    struck.redis.kill()
    await struck.spell()
    await asyncio.to_thread(struck.redis.start)


async def slow(struck: Struck) -> None:
    struck.line.delay = struck.chance.choice((0.03, 0.2, 3.0))
    await struck.spell()
    struck.line.delay = 0.0


async def silent(struck: Struck) -> None:
    struck.line.held.clear()
    await struck.spell()
    struck.line.held.set()
    if struck.chance.random() < 0.5:
        struck.line.cut()


async def flushed(struck: Struck) -> None:
    with struck.redis.client() as client:
        for _ in range(3):
            client.flushall()
            await asyncio.sleep(0.1)


async def rolled_back(struck: Struck) -> None:
    copy = struck.redis.copy()
    await struck.spell()
    await asyncio.to_thread(struck.redis.roll_back, copy)


async def rubbish(struck: Struck) -> None:
    with struck.redis.client() as client:
        for _ in range(5):
            keys: Any = client.keys("*")
            for key in keys:
                match struck.chance.randrange(5):
                    case 0:
                        client.set(key, b"\xff\x00")
                    case 1:
                        client.delete(key)
                        client.rpush(key, "x")
                    case 2:
                        client.delete(key)
                        client.hset(key, "session", '{"agent": null}')
                    case 3:
                        client.delete(key)
                        client.hset(key, mapping={"fence": 2**60, "moment": 1, "session": "{"})
                    case _:
                        client.delete(key)
            await asyncio.sleep(0.1)


async def answering_rubbish(struck: Struck) -> None:
    struck.line.garbage = struck.chance.choice(
        (b"HTTP/1.1 400\r\n\r\n", b"$99999\r\nx\r\n", b"*2\r\n:1\r\n", b"\x00" * 64)
    )
    await struck.spell()
    struck.line.garbage = None
    struck.line.cut()


FAULTS: Sequence[Callable[[Struck], Awaitable[None]]] = (
    gone,
    slow,
    silent,
    flushed,
    rolled_back,
    rubbish,
    answering_rubbish,
)


@dataclass
class Read:
    """What a reader saw while turns ran."""

    count: int = 0
    longest: float = 0.0


@asynccontextmanager
async def read_all_the_time(reader: SessionReader) -> AsyncIterator[Read]:
    read = Read()

    async def go_on() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            for device in NAMES:
                began = clock()
                await reader.session(device)
                read.count += 1
                read.longest = max(read.longest, clock() - began)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(go_on())
    yield read
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), task.exception()


@pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
@pytest.mark.parametrize("way", ["direct"], indirect=True)
async def test_redis_fails(laboratory: Laboratory, seed: int, busy: float, report: Report) -> None:
    chance = chance_of(seed)
    faults = chance.sample(FAULTS, len(FAULTS))
    with running_redis() as redis:
        async with slow_line(redis.port) as line:
            settings = Settings(database_url=laboratory.dsn, redis_url=line.url)
            for name in ("wa1", "wa2", "wa3"):
                orders: Mapping[str, Any] = {"devices": NAMES, "redis_url": line.url, "erases": name == "wa3"}
                laboratory.start(name, lease=LEASE_SECONDS, **orders)
            await laboratory.ready()
            async with SessionReader(settings) as reader, read_all_the_time(reader) as read:
                for fault in faults:
                    await fault(Struck(redis, line, chance))
                await asyncio.sleep(1.2)
            recorded = await laboratory.finish()
            async with SessionReader(settings) as reader:
                hits = [await agrees(reader, device) for device in NAMES]
    waited = max(event.seconds for event in recorded.events if event.event == "waited")
    figures = verify(recorded)
    assert waited <= AT_MOST + busy
    report(**figures, faults=len(faults), reads=read.count, waited=waited, read_at_most=read.longest, hits=sum(hits))


async def agrees(reader: SessionReader, device: str) -> bool:
    """Asserts that Redis, if it has an answer, has PostgreSQL's; returns whether it has one."""
    backend = reader._backend
    assert backend is not None
    assert backend.writer is not None
    stored = await backend.saver.get_session(device)
    found: Session | None = await reader._written(backend.writer, device)
    assert found in (None, stored), f"Redis has {found} of {device}, PostgreSQL {stored}"
    return found is not None
