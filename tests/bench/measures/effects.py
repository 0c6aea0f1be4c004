"""A turn in which the model calls a tool that writes a row, and then answers. Moorline's tool has a `database` effect:
its row and its result in the journal are committed together, so that no crash makes it happen twice. In swarm the tool
writes the same row with psycopg, in a transaction of its own. 100 devices at once take 5 turns each; what counts is the
processor time of the process. Afterwards the rows are counted.

Sends are those of one device's turns, one after another. Moorline's are seven, and a turn waits for each: Begin, which
also reads the state; BEGIN of the tool's transaction, with its time limits; a lock on the device's row if the claim
still stands, so that nobody else can run the turn meanwhile; the tool's INSERT; its result for the journal, with the
model's answer that called it; COMMIT, which also undoes whatever the tool may have set in the session; and the turn's
commit. Swarm's are those of its saver, and the tool's BEGIN, INSERT and COMMIT."""

from __future__ import annotations

from functools import partial
from statistics import median

from tests.bench.contestants import CONTESTANTS
from tests.bench.contestants.notes import COUNT
from tests.bench.driving import REOPENED, speed
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab
from tests.bench.measures.sends import hot
from tests.bench.server import execute

OURS, THEIRS = "moorline_tool", "swarm_tool"
DEVICES, TURNS = 100, 5
ALONE = 20
"""Turns of one device, of which the sends are counted."""


def measure(lab: Lab) -> list[Figure]:
    """Processor time and sends."""
    contestants = [name for name in (OURS, THEIRS) if CONTESTANTS[name].installed]
    results = lab.alternate({name: partial(_run, lab, name) for name in contestants})
    alone = lab.alternate({f"{name} alone": partial(_alone, lab, name) for name in contestants}, rounds=2)
    figures = [
        Figure(
            path="run",
            what="a turn that calls one tool with a `database` effect: sends",
            values=tuple(run["sends"] for run in alone[f"{OURS} alone"]),
            unit="",
            at_most=7.0,
            seen=" against ".join(f"{median(run['sends'] for run in runs):.3g}" for runs in alone.values()),
        )
    ]
    if THEIRS in results:
        ours, theirs = ([run["cpu_ms_per_turn"] for run in results[name]] for name in (OURS, THEIRS))
        figures.append(
            Figure(
                path="run",
                what="a turn that calls one tool with a `database` effect: processor time of swarm with "
                "psycopg against that of Moorline",
                values=ratios(theirs, ours),
                at_least=4.0,
                seen=f"{median(theirs):.1f} ms against {median(ours):.1f} ms",
            )
        )
    return figures


def _run(lab: Lab, contestant: str) -> dict[str, float]:
    with lab.database() as dsn:
        result: dict[str, float] = lab.call(speed, contestant=contestant, dsn=dsn, devices=DEVICES, turns=TURNS)
        _check(dsn, contestant, DEVICES * (1 + TURNS) + REOPENED)
    return result


def _alone(lab: Lab, contestant: str) -> dict[str, float]:
    with lab.database() as dsn:
        result: dict[str, float] = lab.call(hot, contestant=contestant, dsn=dsn, turns=ALONE)
    return result


def _check(dsn: str, contestant: str, turns: int) -> None:
    if (rows := execute(dsn, COUNT)[0]["count"]) != turns:
        raise ValueError(f"in {turns} turns the tool of {contestant} wrote {rows} rows")
