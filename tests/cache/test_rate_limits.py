"""With a Redis, all processes count rate limits together; without an answer from it, each counts by itself."""

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import cast

import httpx2
import pytest

from tests.http.asking import asking, moorline_on
from tests.redis_server import RedisProcess, running_redis, slow_line

D1 = {"X-Device-ID": "device-one"}


async def two(stack: AsyncExitStack, dsn: str, url: str, **settings: str) -> list[httpx2.AsyncClient]:
    """Clients of two processes' apps."""
    return [
        await stack.enter_async_context(asking(moorline_on(dsn, redis_url=url), headers=D1, **settings))
        for _ in range(2)
    ]


async def statuses(clients: list[httpx2.AsyncClient], count: int) -> list[int]:
    return [(await clients[number % 2].get("/v1/session")).status_code for number in range(count)]


async def test_all_processes_count_together(dsn: str, redis: RedisProcess) -> None:
    async with AsyncExitStack() as stack:
        clients = await two(stack, dsn, redis.url, rate_device="3/minute")
        assert await statuses(clients, 5) == [200, 200, 200, 429, 429]
        refused = await clients[0].get("/v1/session")
        assert 0 < int(refused.headers["Retry-After"]) <= 120
        with redis.client() as client:
            keys = b" ".join(cast("list[bytes]", client.keys("moorline:rate*")))
        assert keys
        assert b"device-one" not in keys
        assert b"127.0.0.1" not in keys


async def test_without_redis_each_counts_by_itself_and_that_is_said_once(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis() as redis:
        async with AsyncExitStack() as stack:
            clients = await two(stack, dsn, redis.url, rate_device="3/minute")
            assert await statuses(clients, 2) == [200, 200]
            redis.kill()
            assert await statuses(clients, 8) == [200, 200, 200, 200, 200, 200, 429, 429]
            warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
            assert len([text for text in warned if "rate limits by itself" in text]) == 2, "once in each process"
            redis.start()
            await asyncio.sleep(1.1)
            assert await statuses(clients, 4) == [200, 200, 200, 429]


async def test_a_slow_redis_holds_up_no_request(dsn: str, redis: RedisProcess) -> None:
    async with slow_line(redis.port) as line, AsyncExitStack() as stack:
        clients = await two(stack, dsn, line.url, rate_device="1000/minute")
        await statuses(clients, 2)
        line.delay = 30
        clock = asyncio.get_running_loop().time
        began = clock()
        assert await statuses(clients, 20) == [200] * 20
        assert clock() - began < 2
