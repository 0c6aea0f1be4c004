"""What metrics and traces cost: processor time of hot turns with neither and with both, block by block in one process,
so that everything else is the same. No SDK is set up."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from statistics import median
from uuid import uuid4

from moorline import Moorline
from moorline.observers import DELAY
from moorline.telemetry import Metrics, Tracing
from tests.bench.contestants.moorline import HOLDER, made
from tests.bench.conversation import QUESTION
from tests.bench.figures import Figure
from tests.bench.lab import Lab

BLOCK = 40
"""Turns between two looks at the clock."""

SEEN = 1.2 * DELAY
"""Seconds after which observers have seen the last of them. What they do counts as well."""


async def cost(*, dsn: str, blocks: int) -> dict[str, float]:
    """Milliseconds of processor time for a turn without and with, and the ratio of the medians of blocks."""
    plain, watched = made(dsn, 0.0), made(dsn, 0.0)
    watched.watch(Metrics(), tracing=Tracing())
    spent: dict[str, list[float]] = {"plain_ms": [], "watched_ms": []}
    runtimes = {"plain_ms": plain, "watched_ms": watched}
    async with AsyncExitStack() as stack:
        for name, moorline in runtimes.items():
            await stack.enter_async_context(moorline)
            await _block(moorline, name)
        gc.collect()
        for number in range(blocks):
            for name, moorline in list(runtimes.items())[:: 1 if number % 2 else -1]:
                spent[name].append(await _block(moorline, name))
    ratio = median(late / early for early, late in zip(spent["plain_ms"], spent["watched_ms"], strict=True))
    return {**{name: median(each) for name, each in spent.items()}, "ratio": ratio}


async def _block(moorline: Moorline, device: str) -> float:
    began = time.process_time()
    for _ in range(BLOCK):
        reply = await moorline.run(QUESTION, {"device_id": device, "message_id": uuid4().hex})
        assert reply.agent == HOLDER
    await asyncio.sleep(SEEN)
    return 1000 * (time.process_time() - began) / BLOCK


def measure(lab: Lab) -> list[Figure]:
    """Processor time against processor time."""
    results = []
    for _ in range(lab.rounds):
        with lab.database() as dsn:
            results.append(lab.call(cost, dsn=dsn, blocks=30))
        lab.say("  ".join(f"{name} {value:.3f}" for name, value in results[-1].items()))
    lab.raw[lab.measurement] = {"moorline": results}
    plain, watched = (median(run[name] for run in results) for name in ("plain_ms", "watched_ms"))
    return [
        Figure(
            path="run",
            what="processor time of a hot turn with metrics and traces against without",
            values=tuple(run["ratio"] for run in results),
            at_most=1.03,
            seen=f"{watched:.2f} ms against {plain:.2f} ms",
        )
    ]
