"""A server of a team's own with several processes shows at /metrics what all of them did and use."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from moorline import Moorline, Settings
from moorline.telemetry import Metrics
from tests.turns.runtimes import execute

from .own_server import PROCESSES
from .scrapes import Scrape

ROOT = Path(__file__).parents[2]
POOL_MAX = 5


@pytest.fixture
def address(dsn: str, tmp_path: Path) -> Iterator[str]:
    asyncio.run(execute(dsn, "CREATE TABLE bookings (device_id text, what text)"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.telemetry.own_server", str(port)],
        env=os.environ | {"DATABASE_URL": dsn, "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def until(right: Callable[[], bool]) -> None:
    end = time.monotonic() + 120  # processes that start on a busy machine take their time
    while not right():
        assert time.monotonic() < end
        time.sleep(0.2)


def answers(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/readyz").status_code == 200
    except httpx2.HTTPError:
        return False


def test_whichever_process_answers_shows_the_connections_of_all(address: str) -> None:
    until(lambda: answers(address))
    with httpx2.Client(base_url=address, timeout=60) as client:  # one connection: always the same process

        def seen() -> Scrape:
            return Scrape(client.get("/metrics").text)

        assert client.post("/v1/messages", json={"text": "hi"}, headers={"X-Device-ID": "d1"}).status_code == 200
        until(lambda: seen().of("pool_connections", state="limit") == PROCESSES * POOL_MAX)
        until(lambda: seen()["turns_total"] == 1)


async def test_several_runtimes_of_a_process_are_counted_together_while_they_are_open(dsn: str) -> None:
    metrics = Metrics(registry := CollectorRegistry())

    def limit() -> float | None:
        return registry.get_sample_value("moorline_pool_connections", {"state": "limit"})

    async def reaches(expected: int) -> None:
        async with asyncio.timeout(30):
            while limit() != expected:  # noqa: ASYNC110 - it is looked at every second
                await asyncio.sleep(0.02)

    settings = Settings(database_url=dsn, pool_max=POOL_MAX)
    async with Moorline(settings, observers=[metrics]):
        await reaches(POOL_MAX)
        async with Moorline(settings, observers=[metrics]) as second:
            await reaches(2 * POOL_MAX)
            await asyncio.to_thread(second._backend.saver.get_tuple, {"configurable": {"thread_id": "t"}})
            await reaches(3 * POOL_MAX)
        await reaches(POOL_MAX)
    assert limit() == 0
