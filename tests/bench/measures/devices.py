"""A turn with 1,000,000 devices stored, against one with 1,000. The stored devices are copies, in every table, of the
rows that a real first turn left. A process with a runtime on each of the two databases asks them by turns: random
devices, which no process has seen before, take their second turn one after another. What counts are the medians."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from statistics import median
from uuid import UUID

from tests.bench.contestants import CONTESTANTS
from tests.bench.conversation import QUESTION, check
from tests.bench.driving import drive
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab
from tests.bench.server import execute

STORED = (1_000_000, 1_000)
TOGETHER = 2
"""Tables that are filled at the same time."""
SEED = "seed"

COPIES = """
SELECT format(
    'INSERT INTO %1$I (device_id, %2$s) SELECT d.id, %2$s FROM %1$I t '
    'CROSS JOIN (SELECT md5(n::text)::uuid::text AS id FROM generate_series(0, $1::bigint - 1) n) d '
    'WHERE t.device_id = $2::text ORDER BY d.id',
    c.table_name, string_agg(quote_ident(c.column_name), ', ')) AS statement
FROM information_schema.columns c
JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.column_name <> 'device_id'
    AND c.is_generated = 'NEVER'
    AND EXISTS (
        SELECT FROM information_schema.columns d
        WHERE d.table_schema = 'public' AND d.table_name = c.table_name AND d.column_name = 'device_id')
GROUP BY c.table_name
"""
"""One statement per table with devices: copies the rows of the device $2 to $1 others, whose IDs are UUIDs."""


async def begin(*, dsn: str) -> None:
    """The first turn, of which all others are copied."""
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
        await drive(turn, [SEED], first=1, turns=1)


async def second_turns(*, dsns: list[str], numbers: list[list[int]]) -> list[float]:
    """The median milliseconds of the second turns of the devices with these numbers in each of the databases, after
    some turns of a new device."""
    times: list[list[float]] = [[] for _ in dsns]
    async with AsyncExitStack() as stack:
        turns = [await stack.enter_async_context(CONTESTANTS["moorline"].open(dsn, 0.0)) for dsn in dsns]
        for turn, (first, *_) in zip(turns, numbers, strict=True):
            await drive(turn, [f"new-{first}"], first=1, turns=20)
        for together in zip(*numbers, strict=True):
            for turn, number, taken in zip(turns, together, times, strict=True):
                device = _device(number)
                began = time.perf_counter()
                reply = await turn(device, QUESTION)
                taken.append(time.perf_counter() - began)
                check(reply, 2)
    return [1000 * median(taken) for taken in times]


def _device(number: int) -> str:
    digest = hashlib.md5(str(number).encode(), usedforsecurity=False)
    return str(UUID(digest.hexdigest()))


def measure(lab: Lab) -> list[Figure]:
    """Milliseconds against milliseconds."""
    with ExitStack() as databases:
        dsns = []
        for stored in STORED:
            dsn = databases.enter_context(lab.database())
            lab.call(begin, dsn=dsn)
            lab.say(f"{stored:,} devices are copied")
            with ThreadPoolExecutor(TOGETHER) as threads:
                copies = [threads.submit(execute, dsn, row["statement"], stored, SEED) for row in execute(dsn, COPIES)]
            for copy in copies:
                copy.result()
            execute(dsn, "VACUUM ANALYZE")
            execute(dsn, "CHECKPOINT")
            dsns.append(dsn)
        results = lab.alternate({"both": _rounds(lab, dsns)})["both"]
    slow, fast = ([run[f"{stored} devices"] for run in results] for stored in STORED)
    many, few = STORED
    return [
        Figure(
            path="run",
            what=f"a turn with {many:,} devices stored against {few:,}",
            values=ratios(slow, fast),
            at_most=1.1,
            seen=f"{median(slow):.2f} ms against {median(fast):.2f} ms",
        )
    ]


def _rounds(lab: Lab, dsns: Sequence[str]) -> Callable[[], dict[str, float]]:
    """Runs of which each uses devices that no earlier one has used."""
    left = [list(range(stored)) for stored in STORED]
    for numbers in left:
        random.Random(len(numbers)).shuffle(numbers)  # noqa: S311 - no secret
    sample = 1000 // lab.rounds

    def run() -> dict[str, float]:
        chosen = [[numbers.pop() for _ in range(sample)] for numbers in left]
        found = lab.call(second_turns, dsns=dsns, numbers=chosen)
        return {f"{stored} devices": ms for stored, ms in zip(STORED, found, strict=True)}

    return run
