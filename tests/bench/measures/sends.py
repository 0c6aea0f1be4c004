"""What a turn asks of the server. A send is what a client sends in one go and then waits for, counted by a proxy that
understands the protocol. A flush is an fsync of the write-ahead log by any process of the server (`pg_stat_io`, object
`wal`): each waits for the disk. Transactions are not the measure, because those that are committed together share a
flush, and those that only read need none. Counts hardly differ: three runs."""

from __future__ import annotations

from statistics import median

from tests.bench.contestants import CONTESTANTS
from tests.bench.counting import alone, counted, flushes, transactions
from tests.bench.driving import drive
from tests.bench.figures import Figure
from tests.bench.lab import Lab


async def hot(*, dsn: str, turns: int, contestant: str = "moorline") -> dict[str, float]:
    """Sends of one device's turns, one after another on a warm connection."""
    with counted(dsn) as (way, sends):
        async with CONTESTANTS[contestant].open(way, 0.0) as turn:
            await drive(turn, ["device"], first=1, turns=5)
            before = sends()
            await drive(turn, ["device"], first=6, turns=turns)
            return {"sends": (sends() - before) / turns}


async def crowd(*, dsn: str, devices: int, turns: int) -> dict[str, float]:
    """Sends of many devices' turns at once."""
    names = [f"device-{number}" for number in range(devices)]
    with counted(dsn) as (way, sends):
        async with CONTESTANTS["moorline"].open(way, 0.0) as turn:
            await drive(turn, names, first=1, turns=3)
            before = sends()
            await drive(turn, names, first=4, turns=turns)
            return {"sends": (sends() - before) / (devices * turns)}


async def flushed(*, dsn: str, devices: int, turns: int) -> dict[str, float]:
    """Flushes of many devices' turns at once, straight to the server.

    The server's processes report their statistics at the latest when they end. So the runtime is reopened for the
    turns that count, and opening it is counted with them.
    """
    names = [f"device-{number}" for number in range(devices)]
    moorline = CONTESTANTS["moorline"]
    async with moorline.open(dsn, 0.0) as turn:
        await drive(turn, names, first=1, turns=3)
    await alone(dsn)
    before = await flushes(dsn), await transactions(dsn)
    async with moorline.open(dsn, 0.0) as turn:
        await drive(turn, names, first=4, turns=turns)
    await alone(dsn)
    after = await flushes(dsn), await transactions(dsn)
    flushed, committed = (late - early for early, late in zip(before, after, strict=True))
    return {"flushes": flushed / (devices * turns), "transactions": committed / (devices * turns)}


def measure(lab: Lab) -> list[Figure]:
    """Sends of a turn alone, then sends and flushes of turns in a crowd."""

    def run_hot() -> dict[str, float]:
        with lab.database() as dsn:
            result: dict[str, float] = lab.call(hot, dsn=dsn, turns=100)
            return result

    def run_crowd() -> dict[str, float]:
        size = {"devices": 100, "turns": 20}
        with lab.database() as dsn:
            sent: dict[str, float] = lab.call(crowd, dsn=dsn, **size)
        with lab.database() as dsn:
            sent.update(lab.call(flushed, dsn=dsn, **size))
        return sent

    results = lab.alternate({"hot": run_hot, "crowd": run_crowd}, rounds=3)
    committed = median(run["transactions"] for run in results["crowd"])
    return [
        Figure(
            path="run",
            what="sends of a hot turn that it waits for",
            values=tuple(run["sends"] for run in results["hot"]),
            unit="",
            at_most=2.0,
        ),
        Figure(
            path="run",
            what="100 devices at once: all sends a turn",
            values=tuple(run["sends"] for run in results["crowd"]),
            unit="",
            at_most=0.08,
        ),
        Figure(
            path="run",
            what="100 devices at once: WAL flushes a turn",
            values=tuple(run["flushes"] for run in results["crowd"]),
            unit="",
            at_most=0.09,
            seen=f"{committed:.2f} transactions a turn",
        ),
    ]
