"""The resident memory of one process that has served 1,000 turns, one for each of 1,000 devices, and then continues to
100,000 turns of the same devices. Four runs, two at a time: nothing is timed."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

import psutil

from tests.bench.contestants import CONTESTANTS
from tests.bench.conversation import QUESTION, check
from tests.bench.driving import at_once
from tests.bench.figures import Figure
from tests.bench.lab import Lab

AT_ONCE = 100
"""Turns that run at the same time."""
RUNS, TOGETHER = 4, 2


async def growth(*, dsn: str, devices: int, turns: int) -> dict[str, float]:
    """MiB after the first turn of each device, and after all of its turns."""
    names = [f"device-{number}" for number in range(devices)]
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:

        async def one(device: str, number: int) -> None:
            check(await turn(device, QUESTION), number)

        await at_once(AT_ONCE, (one(device, 1) for device in names))
        early = _resident()
        for number in range(2, turns + 1):
            await at_once(AT_ONCE, (one(device, number) for device in names))
        return {"early_mib": early, "late_mib": _resident()}


def _resident() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def measure(lab: Lab) -> list[Figure]:
    """MiB against MiB."""
    devices, turns = 1000, 100

    def run(dsn: str) -> dict[str, float]:
        result: dict[str, float] = lab.call(growth, dsn=dsn, devices=devices, turns=turns)
        lab.say(f"{result['early_mib']:.1f} MiB, then {result['late_mib']:.1f} MiB")
        return result

    with ExitStack() as databases, ThreadPoolExecutor(TOGETHER) as threads:
        fresh = [databases.enter_context(lab.database()) for _ in range(min(lab.rounds, RUNS))]
        results = list(threads.map(run, fresh))
    lab.raw[lab.measurement] = {"moorline": results}
    early, late = (median(run[name] for run in results) for name in ("early_mib", "late_mib"))
    return [
        Figure(
            path="run",
            what=f"memory after {devices * turns:,} turns of {devices:,} devices against after {devices:,} turns",
            values=tuple(run["late_mib"] / run["early_mib"] for run in results),
            at_most=1.05,
            seen=f"{late:.0f} MiB against {early:.0f} MiB",
        )
    ]
