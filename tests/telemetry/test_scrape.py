"""`moorline serve` shows at /metrics what all of its processes did, whichever of them answers."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.http.serving import Served, serving
from tests.turns.runtimes import execute

from .scrapes import Scrape

APP = "tests.telemetry.app:moorline"
WORKERS = 4
EXPIRE = """
UPDATE conversation_states SET session_ttl = 3600, last_active_at = now() - interval '2 hours',
    locked_at = now() - interval '2 hours'
"""


@pytest.fixture
def served(dsn: str, tmp_path: Path) -> Iterator[Served]:
    asyncio.run(execute(dsn, "CREATE TABLE bookings (device_id text, what text)"))
    settings = {"TMPDIR": str(tmp_path), "MOORLINE_CLEANUP_INTERVAL": "2"}
    with serving(dsn, "--workers", str(WORKERS), app=APP, **settings) as server:
        yield server


def say(server: Served, device: str, text: str, message_id: str = "m1") -> int:
    """On a connection of its own, so that any of the processes may answer."""
    with server.client(device) as client:
        return client.post("/v1/messages", json={"text": text, "message_id": message_id}).status_code


def scrape(server: Served) -> Scrape:
    with httpx2.Client(timeout=30) as client:
        answer = client.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.text)


def eventually(server: Served, right: Callable[[Scrape], bool]) -> Scrape:
    until = time.monotonic() + 120  # processes that start on a busy machine take their time
    while not right(seen := scrape(server)):
        assert time.monotonic() < until, seen.page
        time.sleep(0.2)
    return seen


def _without(file: Path, _: Scrape) -> bool:
    return not file.exists()


def workers(server: Served) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in /proc")
def test_counters_of_all_processes_are_summed_and_what_the_database_holds_is_shown_once(
    served: Served, tmp_path: Path, dsn: str
) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: say(served, f"d{n}", "book table"), range(40)))
    assert answers == [200] * 40
    eventually(served, lambda seen: seen["turns_total"] == 40)
    (folder,) = tmp_path.glob("moorline-metrics-*")
    # Every process says the same, whichever answers, and so does the one that comes for one that is killed.
    for round_ in range(2):
        for _ in range(12):
            seen = scrape(served)
            assert seen["turns_total"] == seen["turn_seconds_count"] == seen["turn_wait_seconds_count"] == 40
            assert seen.of("tokens_total", kind="input") == 40 * 2 * 7
            assert seen.of("sessions", agent="desk") == 40
        seen = eventually(served, lambda seen: seen.of("pool_connections", state="limit") == WORKERS * 5)
        assert 1 <= seen.of("pool_connections", state="idle") <= WORKERS * 5
        if round_ == 0:
            assert len({file.stem.rpartition("_")[2] for file in tmp_path.rglob("counter_*.db")}) > 1
            killed, *_ = workers(served)
            os.kill(killed, signal.SIGKILL)
            eventually(served, partial(_without, folder / f"gauge_livesum_{killed}.db"))
    # The processes clean up by turns; each session that ends is told by one of them.
    asyncio.run(execute(dsn, EXPIRE))
    seen = eventually(served, lambda seen: seen["sessions_cleaned_up_total"] == 40)
    assert seen.of("session_seconds_count", agent="desk", why="expired") == seen["session_seconds_count"] == 40
    assert seen["session_seconds_sum"] == pytest.approx(40 * 3600)
    assert served.stop() == 0
    assert not folder.exists()


def test_metrics_need_no_key_of_a_device_and_are_no_part_of_the_api(dsn: str) -> None:
    with serving(dsn, app=APP, MOORLINE_METRICS_CLIENTS="10.0.0.0/8") as server, httpx2.Client(timeout=30) as client:
        assert client.get(f"{server.url}/metrics").status_code == 403
        assert "/metrics" not in client.get(f"{server.url}/openapi.json").json()["paths"]


def test_one_process_counts_alone(dsn: str, tmp_path: Path) -> None:
    with serving(dsn, app=APP, TMPDIR=str(tmp_path)) as server:
        assert say(server, "d1", "hello") == 200
        seen = eventually(server, lambda seen: seen["turns_total"] == 1)
        assert seen.of("pool_connections", state="limit") == 5
        assert "process_cpu_seconds_total" in seen.names
        assert list(tmp_path.glob("moorline-metrics-*")) == []
