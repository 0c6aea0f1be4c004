"""What a long conversation costs: 8 devices at turn 5,000 against 8 at turn 10.

Time: turns one after another, in a runtime that is reopened five times; each device takes a first turn, whose state the
process has to read, and a second one right after it. What counts are the medians; a round is the middle one of three
such processes, alternating long and short conversations.

Bytes: how much all tables and indexes grow over 1,200 turns, without the question and the answer themselves: at the
beginning 40 devices from turn 10 to turn 40, at the end the 8 devices on from turn 5,000. Both sizes are taken after
VACUUM FULL, so that they do not depend on when autovacuum last ran; what dead rows add until then is shown beside them,
and `tables` shows how many of them remain in the long run."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median

from tests.bench.contestants import CONTESTANTS
from tests.bench.conversation import QUESTION, check
from tests.bench.driving import drive
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab
from tests.bench.server import execute
from tests.bench.sizes import ITSELF, packed, total

DEVICES = 8
PROCESSES = 3
"""Processes that time turns, in each round."""
OPENINGS = 5
"""How often each process opens the runtime."""
EARLY = 10
"""The turn at which a conversation is short."""
GROWING, GROWN = 40, 30
"""Devices, and turns of each, over which tables grow at the beginning."""


async def converse(*, dsn: str, devices: int, first: int, turns: int) -> None:
    """Turns that are not timed."""
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
        await drive(turn, [f"device-{number}" for number in range(devices)], first=first, turns=turns)


async def timed(*, dsn: str, first: int) -> dict[str, float]:
    """The median times of turns whose state has to be read, and of turns right after them."""
    times: list[list[float]] = [[], []]
    for opening in range(OPENINGS):
        async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
            await turn("warm-up", QUESTION)
            for device in range(DEVICES):
                for place in (0, 1):
                    began = time.perf_counter()
                    reply = await turn(f"device-{device}", QUESTION)
                    times[place].append(time.perf_counter() - began)
                    check(reply, first + 2 * opening + place)
    read, held = (1000 * median(some) for some in times)
    return {"read_ms": read, "held_ms": held}


class Long:
    """The database of long conversations, which continue from round to round."""

    def __init__(self, lab: Lab, dsn: str) -> None:
        self._lab, self._dsn, self._next = lab, dsn, 1

    def converse(self, turns: int) -> None:
        """Goes on."""
        self._lab.call(converse, dsn=self._dsn, devices=DEVICES, first=self._next, turns=turns)
        self._next += turns

    def timed(self) -> dict[str, float]:
        """Times the next turns."""
        execute(self._dsn, "VACUUM ANALYZE")
        result: dict[str, float] = self._lab.call(timed, dsn=self._dsn, first=self._next)
        self._next += 2 * OPENINGS
        return result

    def growth(self) -> dict[str, float]:
        """Bytes a turn, over the next turns."""
        before = packed(self._dsn)
        self.converse(GROWING * GROWN // DEVICES)
        return _growth(self._dsn, before)


def measure(lab: Lab) -> list[Figure]:
    """Time and bytes of a turn."""
    grown = lab.size(5000, 300)
    with ExitStack() as stack:
        long = Long(lab, stack.enter_context(lab.database()))
        for done in range(0, grown - 1, 1000):
            long.converse(min(1000, grown - 1 - done))
            lab.say(f"{DEVICES} conversations go on to turn {grown:,}")

        def early_timed() -> dict[str, float]:
            with lab.database() as dsn:
                lab.call(converse, dsn=dsn, devices=DEVICES, first=1, turns=EARLY - 1)
                execute(dsn, "VACUUM ANALYZE")
                result: dict[str, float] = lab.call(timed, dsn=dsn, first=EARLY)
                return result

        def both_timed() -> dict[str, float]:
            late, early = zip(*((long.timed(), early_timed()) for _ in range(PROCESSES)), strict=True)
            return {
                f"{when} {name}": median(run[name] for run in runs)
                for when, runs in (("late", late), ("early", early))
                for name in runs[0]
            }

        def early_growth() -> dict[str, float]:
            with lab.database() as dsn:
                lab.call(converse, dsn=dsn, devices=GROWING, first=1, turns=EARLY - 1)
                before = packed(dsn)
                lab.call(converse, dsn=dsn, devices=GROWING, first=EARLY, turns=GROWN)
                return _growth(dsn, before)

        results = lab.alternate({"times": both_timed, "late bytes": long.growth, "early bytes": early_growth})

    figures = []
    for name, how in (("read_ms", "whose state has to be read"), ("held_ms", "right after another")):
        slow, fast = ([run[f"{when} {name}"] for run in results["times"]] for when in ("late", "early"))
        figures.append(
            Figure(
                path="run",
                what=f"a turn {how}: at message {grown:,} against message {EARLY}",
                values=ratios(slow, fast),
                at_most=1.1,
                seen=f"{median(slow):.2f} ms against {median(fast):.2f} ms",
            )
        )
    for name, turn in (("early bytes", EARLY), ("late bytes", grown)):
        runs_of = results[name]
        figures.append(
            Figure(
                path="run",
                what=f"stored bytes a turn beyond message and reply, at turn {turn:,}",
                values=tuple(run["bytes"] for run in runs_of),
                unit=" B",
                at_most=1024,
                seen=f"{median(run['with_dead'] for run in runs_of):,.0f} B before it is vacuumed",
            )
        )
    return figures


def _growth(dsn: str, before: int) -> dict[str, float]:
    with_dead, without = ((size - before) / (GROWING * GROWN) - ITSELF for size in (total(dsn), packed(dsn)))
    return {"bytes": without, "with_dead": with_dead}
