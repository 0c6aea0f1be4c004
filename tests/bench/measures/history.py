"""What a long conversation costs: 8 devices at turn 5,000 against 8 at turn 10.

Time: turns one after another, of a long and a short conversation by turns, in a runtime that is reopened five times;
each device takes a first turn, whose state the process has to read, and a second one soon after it. What counts are the
medians; a round is the middle one of three such processes, each with short conversations of its own beside the long
ones, in one database.

Bytes: how much all tables and indexes grow over 1,440 turns, without the question and the answer themselves: at the
beginning 48 devices from turn 10 to turn 40, at the end the 8 devices on from turn 5,000; two runs, which hardly
differ. Both sizes are taken after VACUUM FULL, so that they do not depend on when autovacuum last ran; what dead rows
add until then is shown beside them, and `tables` shows how many of them remain in the long run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from tests.bench.contestants import CONTESTANTS
from tests.bench.conversation import QUESTION, check
from tests.bench.driving import drive
from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab
from tests.bench.server import execute
from tests.bench.sizes import ITSELF, packed, total

DEVICES = 8
GROWN = 5000
"""The turn at which a conversation is long."""
PROCESSES = 3
"""Processes that time turns, in each round."""
OPENINGS = 5
"""How often each process opens the runtime."""
EARLY = 10
"""The turn at which a conversation is short."""
GROWING, GROWING_TURNS = 48, 30
"""Devices, and turns of each, over which tables grow at the beginning."""


async def converse(*, dsn: str, devices: int, first: int, turns: int, start: int = 0) -> None:
    """Turns that are not timed, of `devices` devices from number `start` on."""
    async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
        names = [f"device-{number}" for number in range(start, start + devices)]
        await drive(turn, names, first=first, turns=turns)


async def timed(*, dsn: str, late: int, start: int) -> dict[str, float]:
    """The median milliseconds of turns whose state has to be read, and of turns soon after them: of the long
    conversations, from turn `late` on, and of short ones, whose devices have the numbers from `start` on."""
    times: dict[str, list[float]] = defaultdict(list)
    for opening in range(OPENINGS):
        async with CONTESTANTS["moorline"].open(dsn, 0.0) as turn:
            await turn("warm-up", QUESTION)
            for device in range(DEVICES):
                for place, how in enumerate(("read_ms", "held_ms")):
                    pair = (("late", device, late), ("early", start + device, EARLY))
                    for when, number, first in pair[:: 1 if device % 2 else -1]:
                        began = time.perf_counter()
                        reply = await turn(f"device-{number}", QUESTION)
                        times[f"{when} {how}"].append(time.perf_counter() - began)
                        check(reply, first + 2 * opening + place)
    return {name: 1000 * median(taken) for name, taken in times.items()}


class Conversations:
    """The database of the long conversations, which continue from round to round, and of short ones, which are new in
    every process that times them."""

    def __init__(self, lab: Lab, dsn: str) -> None:
        self._lab, self._dsn = lab, dsn
        self._next, self._start = 1, DEVICES

    def converse(self, turns: int) -> None:
        """The long ones go on, half of them in each of two processes."""
        half = DEVICES // 2

        def some(start: int) -> None:
            self._lab.call(converse, dsn=self._dsn, devices=half, first=self._next, turns=turns, start=start)

        with ThreadPoolExecutor() as threads:
            list(threads.map(some, (0, half)))
        self._next += turns

    def begin(self, devices: int) -> None:
        """Short ones are made."""
        self._lab.call(converse, dsn=self._dsn, devices=devices, first=1, turns=EARLY - 1, start=self._start)

    def timed(self) -> dict[str, float]:
        """Times the next turns of the long ones, and those of short ones."""
        execute(self._dsn, "VACUUM ANALYZE")
        result: dict[str, float] = self._lab.call(timed, dsn=self._dsn, late=self._next, start=self._start)
        self._next += 2 * OPENINGS
        self._start += DEVICES
        return result

    def growth(self) -> dict[str, float]:
        """Bytes a turn of the long ones, over their next turns."""
        before = packed(self._dsn)
        self.converse(GROWING * GROWING_TURNS // DEVICES)
        return _growth(self._dsn, before)


def early_growth(dsn: str, call: Callable[..., object]) -> dict[str, float]:
    """Bytes a turn from turn 10 on, in a database without conversations; `call` calls `converse`."""
    call(dsn=dsn, devices=GROWING, first=1, turns=EARLY - 1)
    before = packed(dsn)
    call(dsn=dsn, devices=GROWING, first=EARLY, turns=GROWING_TURNS)
    return _growth(dsn, before)


def measure(lab: Lab) -> list[Figure]:
    """Time and bytes of a turn."""
    with lab.database() as dsn:
        conversations = Conversations(lab, dsn)
        conversations.begin(DEVICES * PROCESSES * lab.rounds)
        lab.say(f"{DEVICES} conversations go on to turn {GROWN:,}")
        conversations.converse(GROWN - 1)

        def both_timed() -> dict[str, float]:
            runs = [conversations.timed() for _ in range(PROCESSES)]
            return {name: median(run[name] for run in runs) for name in runs[0]}

        def growth_at_the_beginning() -> dict[str, float]:
            with lab.database() as fresh:
                return early_growth(fresh, partial(lab.call, converse))

        times = lab.alternate({"times": both_timed})["times"]
        grown = lab.alternate({"late bytes": conversations.growth, "early bytes": growth_at_the_beginning}, rounds=2)

    figures = []
    for name, how in (("read_ms", "whose state has to be read"), ("held_ms", "right after another")):
        slow, fast = ([run[f"{when} {name}"] for run in times] for when in ("late", "early"))
        figures.append(
            Figure(
                path="run",
                what=f"a turn {how}: at message {GROWN:,} against message {EARLY}",
                values=ratios(slow, fast),
                at_most=1.06,
                seen=f"{median(slow):.2f} ms against {median(fast):.2f} ms",
            )
        )
    for name, turn, bound in (("early bytes", EARLY, 1200), ("late bytes", GROWN, 490)):
        runs_of = grown[name]
        figures.append(
            Figure(
                path="run",
                what=f"stored bytes a turn beyond message and reply, at turn {turn:,}",
                values=tuple(run["bytes"] for run in runs_of),
                unit=" B",
                at_most=bound,
                seen=f"{median(run['with_dead'] for run in runs_of):,.0f} B before it is vacuumed",
            )
        )
    return figures


def _growth(dsn: str, before: int) -> dict[str, float]:
    with_dead, without = ((size - before) / (GROWING * GROWING_TURNS) - ITSELF for size in (total(dsn), packed(dsn)))
    return {"bytes": without, "with_dead": with_dead}
