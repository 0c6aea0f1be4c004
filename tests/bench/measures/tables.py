"""The size of the tables with autovacuum at the server's default settings, including indexes, after 10,000 and after
100,000 turns on 100 devices, at full speed, once. The bytes per turn are the growth between the two, including dead
rows and free space."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures.history import converse
from tests.bench.sizes import ITSELF, tables

DEVICES = 100


def measure(lab: Lab) -> list[Figure]:
    """Bytes a turn, and MiB of each table."""
    few, many = 100, 1000
    with lab.database() as dsn:
        lab.call(converse, dsn=dsn, devices=DEVICES, first=1, turns=few)
        before = tables(dsn)
        lab.say(f"{DEVICES * few:,} turns")
        lab.call(converse, dsn=dsn, devices=DEVICES, first=few + 1, turns=many - few)
        after = tables(dsn)
    lab.raw[lab.measurement] = {"before": before, "after": after}
    grown = sum(after[name]["bytes"] - before[name]["bytes"] for name in after)
    a_turn = Figure(
        path="run",
        what=f"stored bytes a turn beyond message and reply, from {DEVICES * few:,} to {DEVICES * many:,} turns",
        values=(grown / (DEVICES * (many - few)) - ITSELF,),
        unit=" B",
        at_most=770,
        seen="nothing vacuumed but by the server itself",
    )
    sizes = [
        Figure(
            path="run",
            what=f"`{name}` after {DEVICES * many:,} turns on {DEVICES} devices",
            values=(table["bytes"] / 2**20,),
            unit=" MiB",
            seen=f"{before[name]['bytes'] / 2**20:.1f} MiB after {DEVICES * few:,}; {table['dead']:,} dead rows, "
            f"vacuumed {table['vacuums']} times",
        )
        for name, table in after.items()
    ]
    return [a_turn, *sizes]
