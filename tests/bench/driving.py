"""Runs a contestant in a process of its own, and takes the time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine, Iterable, Sequence
from statistics import quantiles
from typing import Any

from tests.bench.contestants import CONTESTANTS, Turn
from tests.bench.conversation import QUESTION, check

REOPENED = 3
"""Devices whose conversations continue after the contestant was closed and opened again."""


async def speed(
    *, contestant: str, dsn: str, devices: int, turns: int, model_seconds: float = 0.0, spread: float = 0.0
) -> dict[str, float]:
    """Runs the turns of all devices at once, after a first turn of each that is not counted.

    `spread` seconds is the time over which the devices begin; 0 lets all begin at the same moment.
    """
    who = CONTESTANTS[contestant]
    names = [f"device-{number}" for number in range(devices)]
    async with who.open(dsn, model_seconds) as turn:
        await drive(turn, names, first=1, turns=1)
        gc.collect()
        began, worked = time.perf_counter(), time.process_time()
        times = await drive(turn, names, first=2, turns=turns, spread=spread)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    if who.durable:
        async with who.open(dsn, 0.0) as turn:
            await drive(turn, names[:REOPENED], first=turns + 2, turns=1)
    percentiles = quantiles(times, n=100, method="inclusive")
    return {
        "turns_per_second": devices * turns / seconds,
        "cpu_ms_per_turn": 1000 * cpu / (devices * turns),
        "p50": percentiles[49],
        "p99": percentiles[98],
    }


async def drive(turn: Turn, devices: Sequence[str], *, first: int, turns: int, spread: float = 0.0) -> list[float]:
    """Runs the turns of all devices at once, those of one device one after another; returns the seconds each took.

    `first` is the number of each device's next turn: every reply is checked.
    """
    times: list[float] = []

    async def converse(device: str, delay: float) -> None:
        await asyncio.sleep(delay)
        for number in range(first, first + turns):
            began = time.perf_counter()
            reply = await turn(device, QUESTION)
            times.append(time.perf_counter() - began)
            check(reply, number)

    await asyncio.gather(*(converse(device, spread * place / len(devices)) for place, device in enumerate(devices)))
    return times


async def at_once(number: int, turns: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all of them, `number` at a time."""
    left = iter(turns)

    async def some() -> None:
        for turn in left:
            await turn

    await asyncio.gather(*(some() for _ in range(number)))
