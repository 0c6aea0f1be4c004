"""500 turns in flight: 500 devices send at the same moment, with a model that takes so long that all of them think at
once. What counts is the most connections that the server saw, which is the same each time: two runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from tests.bench.contestants import CONTESTANTS
from tests.bench.driving import drive
from tests.bench.figures import Figure
from tests.bench.lab import Lab

LOOK = 0.02
"""Seconds between two checks of the server."""

COUNT = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def in_flight(*, dsn: str, devices: int, model_seconds: float) -> dict[str, float]:
    """The highest number of connections, and of turns that were begun and not yet answered."""
    names = [f"device-{number}" for number in range(devices)]
    watch = await asyncpg.connect(dsn)
    open_turns = most_turns = most = 0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, await watch.fetchval(COUNT))
            await asyncio.sleep(LOOK)

    async with CONTESTANTS["moorline"].open(dsn, model_seconds) as moorline:

        async def turn(device: str, text: str) -> str:
            nonlocal open_turns, most_turns
            open_turns += 1
            most_turns = max(most_turns, open_turns)
            reply = await moorline(device, text)
            open_turns -= 1
            return reply

        looking = asyncio.create_task(look())
        await drive(turn, names, first=1, turns=2)
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    await watch.close()
    return {"connections": most, "turns_in_flight": most_turns}


def measure(lab: Lab) -> list[Figure]:
    """Connections."""

    def run() -> dict[str, float]:
        with lab.database() as dsn:
            result: dict[str, float] = lab.call(in_flight, dsn=dsn, devices=500, model_seconds=5.0)
            return result

    results = lab.alternate({"moorline": run}, rounds=2)["moorline"]
    return [
        Figure(
            path="run",
            what="connections for 500 turns in flight",
            values=tuple(run["connections"] for run in results),
            unit="",
            at_most=5,
            seen=f"{min(run['turns_in_flight'] for run in results):.0f} turns in flight",
        )
    ]
