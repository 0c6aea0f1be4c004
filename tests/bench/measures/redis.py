"""What Redis is good for and what it costs. A gateway reads the sessions of 1,000 devices through `SessionReader`, one
after another and 16 at a time: from Redis, and without one from PostgreSQL; the processor time is the gateway's. Then
100 devices take turns at once with a model that answers at once, with and without a Redis that is told of each commit.
Skipped where there is no redis-server."""

from __future__ import annotations

import gc
import time
from statistics import median

from moorline import Settings
from moorline.cache import SessionReader
from moorline_checkpoint.saver import DeviceCheckpointer
from tests.bench.contestants.moorline import made
from tests.bench.driving import at_once, drive
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab, Results
from tests.redis_server import REDIS, running_redis

DEVICES, READS, AT_ONCE = 1_000, 3_000, 16

TURNS = 20


async def fill(*, dsn: str) -> None:
    """Gives each device a session."""
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        for number in range(DEVICES):
            await saver.set_session_lock(f"device-{number}", "orders")


async def reads(*, dsn: str, redis_url: str | None) -> dict[str, float]:
    """Milliseconds of one read and of this process for it, and reads a second of many at once."""
    async with SessionReader(Settings(database_url=dsn, redis_url=redis_url)) as reader:
        for number in range(DEVICES):  # what is not in Redis yet gets there
            assert await reader.session(f"device-{number}") is not None
        for number in range(0, DEVICES, 10):
            await reader.session(f"device-{number}")
        took = []
        worked = time.process_time()
        for number in range(READS):
            at = time.perf_counter()
            await reader.session(f"device-{number % DEVICES}")
            took.append(time.perf_counter() - at)
        cpu = time.process_time() - worked

        async def read(number: int) -> None:
            await reader.session(f"device-{number % DEVICES}")

        began = time.perf_counter()
        await at_once(AT_ONCE, (read(number) for number in range(READS)))
        spent = time.perf_counter() - began
    return {"p50_ms": 1000 * median(took), "cpu_ms_per_read": 1000 * cpu / READS, "reads_per_second": READS / spent}


async def turns(*, dsn: str, redis_url: str | None) -> dict[str, float]:
    """Turns a second, and processor time of this process for one."""
    names = [f"device-{number}" for number in range(100)]
    async with made(dsn, 0.0, redis_url=redis_url) as moorline:

        async def turn(device: str, text: str) -> str:
            return await moorline.run(text, {"device_id": device})

        await drive(turn, names, first=1, turns=1)
        gc.collect()
        began, worked = time.perf_counter(), time.process_time()
        await drive(turn, names, first=2, turns=TURNS)
        spent, cpu = time.perf_counter() - began, time.process_time() - worked
    count = len(names) * TURNS
    return {"turns_per_second": count / spent, "cpu_ms_per_turn": 1000 * cpu / count}


def measure(lab: Lab) -> list[Figure]:
    """Reads against reads, turns against turns."""
    if REDIS is None:
        lab.say("skipped: redis-server is not installed")
        return []
    with running_redis() as redis, lab.database() as dsn:
        lab.call(fill, dsn=dsn)
        read = lab.alternate(
            {
                "redis": lambda: lab.call(reads, dsn=dsn, redis_url=redis.url),
                "postgresql": lambda: lab.call(reads, dsn=dsn, redis_url=None),
            }
        )

        def run(url: str | None) -> dict[str, float]:
            with lab.database() as fresh:
                result: dict[str, float] = lab.call(turns, dsn=fresh, redis_url=url)
                return result

        told = lab.alternate({"told": lambda: run(redis.url), "untold": lambda: run(None)})

    return [
        Figure(
            path="run",
            what="a gateway's read of a session: PostgreSQL against Redis, p50",
            values=ratios(of(read["postgresql"], "p50_ms"), of(read["redis"], "p50_ms")),
            seen=pair(read, ("postgresql", "redis"), "p50_ms", "cpu_ms_per_read", " ms"),
        ),
        Figure(
            path="run",
            what="a gateway's reads of sessions, 16 at once: Redis against PostgreSQL",
            values=ratios(of(read["redis"], "reads_per_second"), of(read["postgresql"], "reads_per_second")),
            seen=pair(read, ("redis", "postgresql"), "reads_per_second", "cpu_ms_per_read", "/s"),
        ),
        Figure(
            path="run",
            what="100 devices at once: turns/s with a Redis that is told of each commit against without",
            values=ratios(of(told["told"], "turns_per_second"), of(told["untold"], "turns_per_second")),
            seen=pair(told, ("told", "untold"), "turns_per_second", "cpu_ms_per_turn", "/s"),
        ),
    ]


def of(results: list[dict[str, float]], name: str) -> list[float]:
    return [result[name] for result in results]


def pair(results: Results, names: tuple[str, str], what: str, cpu: str, unit: str) -> str:
    """The medians of two contestants."""

    def seen(result: list[dict[str, float]]) -> str:
        value = median(of(result, what))
        return f"{value:.{0 if value >= 100 else 2}f}{unit} ({median(of(result, cpu)):.2f} ms CPU)"

    return " against ".join(seen(results[name]) for name in names)
