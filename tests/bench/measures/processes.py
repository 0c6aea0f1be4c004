"""Two processes on one database, against one. In all, 100 devices take 50 turns each with a model that answers at once:
all of them in one process, or 50 in each of two. After a first turn of each device, the processes start together; what
counts are the turns that were answered while all of them were still at work. PostgreSQL runs beside them on the same
cores, so on two cores two processes cannot be twice as fast."""

from __future__ import annotations

import gc
import time

from tests.bench.contestants import CONTESTANTS
from tests.bench.driving import drive
from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.racing import rates, versus
from tests.bench.worker import meet

DEVICES, TURNS = 100, 50


async def share(*, dsn: str, process: int, devices: int, turns: int) -> dict[str, list[float]]:
    """When the turns of this process's devices were answered, on the machine's clock, after when they began."""
    names = [f"device-{process}-{number}" for number in range(devices)]
    answered = []
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as moorline:

        async def turn(device: str, text: str) -> str:
            reply = await moorline(device, text)
            answered.append(time.monotonic())
            return reply

        await drive(moorline, names, first=1, turns=1)
        gc.collect()
        await meet()
        began, worked = time.monotonic(), time.process_time()
        await drive(turn, names, first=2, turns=turns)
        cpu = time.process_time() - worked
    return {"began": [began], "answered": answered, "cpu": [cpu]}


def measure(lab: Lab) -> list[Figure]:
    """Turns a second."""

    def run(processes: int) -> dict[str, float]:
        devices = DEVICES // processes
        with lab.database() as dsn:
            size = {"dsn": dsn, "devices": devices, "turns": TURNS}
            shares = lab.together(share, [{**size, "process": process} for process in range(processes)])
        began = max(some["began"][0] for some in shares)
        ended = min(some["answered"][-1] for some in shares)
        answered = sum(began < moment <= ended for some in shares for moment in some["answered"])
        return {
            "turns_per_second": answered / (ended - began),
            "cpu_ms_per_turn": 1000 * sum(some["cpu"][0] for some in shares) / (DEVICES * TURNS),
        }

    results = lab.alternate({"two": lambda: run(2), "one": lambda: run(1)})
    return [
        Figure(
            path="run",
            what="two processes on two cores, PostgreSQL beside them: turns/s against one process",
            values=versus(results, "two", "one"),
            at_least=1.3,
            seen=f"{rates(results, 'two')} against {rates(results, 'one')}",
        )
    ]
