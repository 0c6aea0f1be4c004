"""A turn with 1,000,000 devices stored, against one with 1,000. The stored devices are copies, in every table, of the
rows that a real first turn left. Random devices, which the process has never seen, take their second turn one after
another; what counts is the median."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from uuid import UUID

from tests.bench.contestants import CONTESTANTS
from tests.bench.conversation import QUESTION, check
from tests.bench.driving import drive
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab
from tests.bench.server import execute

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


async def second_turns(*, dsn: str, numbers: list[int]) -> dict[str, float]:
    """The median time of the second turns of the devices with these numbers, after some turns of a new device."""
    digests = (hashlib.md5(str(number).encode(), usedforsecurity=False) for number in numbers)
    devices = [str(UUID(digest.hexdigest())) for digest in digests]
    times = []
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
        await drive(turn, [f"new-{numbers[0]}"], first=1, turns=20)
        for device in devices:
            began = time.perf_counter()
            reply = await turn(device, QUESTION)
            times.append(time.perf_counter() - began)
            check(reply, 2)
    return {"ms": 1000 * median(times)}


def measure(lab: Lab) -> list[Figure]:
    """Milliseconds against milliseconds."""
    many, few = lab.size(1_000_000, 50_000), 1_000
    with ExitStack() as databases:
        runs = {}
        for stored in (many, few):
            dsn = databases.enter_context(lab.database())
            lab.call(begin, dsn=dsn)
            for row in execute(dsn, COPIES):
                lab.say(f"copies to {stored:,}: {row['statement'].split()[2]}")
                execute(dsn, row["statement"], stored, SEED)
            execute(dsn, "VACUUM ANALYZE")
            execute(dsn, "CHECKPOINT")
            runs[f"{stored:,} devices"] = _rounds(lab, dsn, stored)
        results = lab.alternate(runs)
    slow, fast = ([run["ms"] for run in results[f"{stored:,} devices"]] for stored in (many, few))
    return [
        Figure(
            path="run",
            what=f"a turn with {many:,} devices stored against {few:,}",
            values=ratios(slow, fast),
            at_most=1.2,
            seen=f"{median(slow):.2f} ms against {median(fast):.2f} ms",
        )
    ]


def _rounds(lab: Lab, dsn: str, stored: int) -> Callable[[], dict[str, float]]:
    """Runs of which each uses devices that no earlier one has used."""
    left = list(range(stored))
    random.Random(stored).shuffle(left)  # noqa: S311 - no secret
    sample = 1000 // lab.rounds

    def run() -> dict[str, float]:
        numbers = [left.pop() for _ in range(sample)]
        result: dict[str, float] = lab.call(second_turns, dsn=dsn, numbers=numbers)
        return result

    return run
