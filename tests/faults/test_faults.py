"""Workers are killed, stopped, cut off and crowded, and devices erased: after each fault, nothing is violated."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import get_args

import asyncpg
import pytest

from tests.faults.backends import states
from tests.faults.checker import LAST
from tests.faults.conftest import Report
from tests.faults.failpoints import Failpoint, Place
from tests.faults.laboratory import PATIENCE, Laboratory, verify
from tests.faults.model import Read
from tests.faults.victims import recoveries, struck, victims
from tests.faults.worker import Errand, chance_of

LEASE_SECONDS = 2.0
"""Seconds of the lease, in tests that do not use the product's own."""

SPELL = 1.5
"""Seconds that workers wander while something goes wrong."""

LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def devices(count: int) -> tuple[str, ...]:
    return tuple(f"device-{number}" for number in range(count))


async def test_killed_anywhere(laboratory: Laboratory, report: Report) -> None:
    hit = victims(laboratory)
    for victim in hit:
        victim.start(laboratory, signal="SIGKILL", lease=LEASE_SECONDS)
    strikes = await struck(laboratory, hit)
    # What was on its way is delivered again, and other workers send to the devices.
    left = tuple(errand for victim in hit for errand in victim.errands)
    laboratory.start("wa1", errands=left, lease=LEASE_SECONDS)
    laboratory.start("wa2", devices=tuple(victim.device for victim in hit), lease=LEASE_SECONDS)
    await laboratory.until(lambda: {e.message for e in laboratory.events("ok")} >= {e.message for e in left}, "replies")
    recorded = await laboratory.finish()

    figures = verify(recorded)
    assert {event.text for event in strikes.values()} == set(get_args(Place))
    assert [row.status for row in recorded.messages if row.message in strikes] == ["done"] * len(hit)
    took = recoveries(strikes, recorded.events)
    assert len(took) == sum(victim.at != "after_commit_before_reply" for victim in hit)
    report(**figures, failpoints=f"{len(strikes)} of {len(hit)}")


@pytest.mark.parametrize("lease", [LEASE_SECONDS, pytest.param(15.0, marks=pytest.mark.laboratory)])
async def test_a_killed_workers_turn_is_finished_when_its_lease_is_over(
    laboratory: Laboratory, lease: float, busy: float, report: Report
) -> None:
    """At the latest a second after that, or after the next message if that is later.

    Stopped workers may hold the device's row in a tool's transaction, which the server ends before the product's own
    lease of 15 s is over.
    """
    hit = victims(laboratory, "after_begin", "before_effect", "after_effect", "before_commit")
    stopped = [victim for victim in hit if "effect" in victim.at and victim.verb == "book"] if lease == 15 else []
    running = [
        victim.start(laboratory, signal="SIGSTOP" if victim in stopped else "SIGKILL", lease=lease) for victim in hit
    ]
    strikes = await struck(laboratory, hit)
    laboratory.start("wa1", errands=tuple(errand for victim in hit for errand in victim.errands), lease=lease)
    await laboratory.until(lambda: len(recoveries(strikes, laboratory.events())) == len(hit), "recoveries")
    for process in running:
        process.signal(signal.SIGCONT)
    recorded = await laboratory.finish()

    figures = verify(recorded)
    begun = {e.message: e.at for e in recorded.events if e.event == "begun" and e.worker.startswith("v")}
    asked = {e.message: e.at for e in recorded.events if e.event == "invoke" and e.worker == "wa1"}
    finished = {message: strikes[message].at + took for message, took in recoveries(strikes, recorded.events).items()}
    assert min(at - begun[message] for message, at in finished.items()) > lease - 1
    late = {message: at - max(strikes[message].at + lease, asked[message]) for message, at in finished.items()}
    assert len(late) == len(hit)
    assert max(late.values()) <= 1 + busy
    report(**figures, recovery_after_the_lease=max(late.values()))


async def test_stopped_past_the_lease(laboratory: Laboratory, report: Report) -> None:
    """A worker that wakes after another one's claim can neither commit nor have an effect."""
    hit = [v for v in victims(laboratory) if v.verb != "book" and v.at != "after_commit_before_reply"]
    running = [victim.start(laboratory, signal="SIGSTOP", lease=LEASE_SECONDS) for victim in hit]
    strikes = await struck(laboratory, hit)
    laboratory.start("wa1", errands=tuple(e for victim in hit for e in victim.errands), lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(recoveries(strikes, laboratory.events())) == len(hit), "recoveries")
    for process in running:
        process.signal(signal.SIGCONT)
    laboratory.start("wa2", devices=tuple(victim.device for victim in hit), lease=LEASE_SECONDS)
    await laboratory.until(lambda: {e.message for e in laboratory.events("stale")} >= strikes.keys(), "stale turns")
    recorded = await laboratory.finish()

    figures = verify(recorded)
    stale = {event.message for event in recorded.events if event.event == "stale" and event.worker.startswith("v")}
    assert stale >= strikes.keys()
    report(**figures, stale_refused=f"{len(stale & strikes.keys())} of {len(hit)}")


async def test_backends_killed(laboratory: Laboratory, seed: int, report: Report) -> None:
    chance = chance_of(seed)
    for name in ("wa1", "wa2", "wa3"):
        laboratory.start(name, devices=devices(8), lease=LEASE_SECONDS)
    await laboratory.ready()
    connection = await asyncpg.connect(laboratory.dsn)
    killed = 0
    try:
        async with asyncio.timeout(SPELL):
            while True:
                killed += len(await connection.fetch(KILL, chance.choice((0.3, 1.0))))
                await asyncio.sleep(0.3 * chance.random())
    except TimeoutError:
        pass
    finally:
        await connection.close()
    report(**verify(await laboratory.finish()), backends=killed)


KILL = """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < $1
"""


async def test_everything_at_once(laboratory: Laboratory, seed: int, report: Report) -> None:
    """Workers are killed at any point and others take their places, while connections break."""
    chance = chance_of(seed)
    for name in ("wa1", "wa2"):
        laboratory.start(name, devices=devices(6), lease=LEASE_SECONDS)
    for number in range(4):
        at = chance.choice(get_args(Place))
        failpoint = Failpoint(at=at, hit=chance.randint(1, 4), signal="SIGKILL")
        laboratory.start(f"wb{number}", devices=devices(6), failpoints=(failpoint,), lease=LEASE_SECONDS)
        await laboratory.ready()
        connection = await asyncpg.connect(laboratory.dsn)
        try:
            await connection.fetch(KILL, chance.choice((0.0, 0.2, 1.0)))
        finally:
            await connection.close()
        await asyncio.sleep(0.5 * chance.random())
    recorded = await laboratory.finish()
    killed = sum(event.event == "failpoint" for event in recorded.events)
    dead = sum(row.status == "dead" for row in recorded.messages)
    report(**verify(recorded), killed=killed, set_aside=dead)


async def test_each_message_five_times(laboratory: Laboratory, seed: int, report: Report) -> None:
    """Five deliveries at once in three processes: five equal replies, one turn."""
    verbs = ("say", "ring", f"book {laboratory.day}T10:00", "pass scheduling", "bye", "chime")
    messages = [
        Errand(device=device, message=f"m-five-{n}{k}", text=f"m-five-{n}{k} {verb}")
        for n, device in enumerate(devices(3), start=1)
        for k, verb in enumerate(verbs)
    ]
    deliveries = messages * 5
    chance_of(seed).shuffle(deliveries)
    for number in range(3):
        laboratory.start(f"wa{number}", errands=tuple(deliveries[number::3]), lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(laboratory.events("ok")) >= len(deliveries), "replies")
    recorded = await laboratory.finish()

    figures = verify(recorded)
    given = Counter((e.message, e.reply, e.turn_no) for e in recorded.events if e.event == "ok")
    assert [count for (message, *_), count in given.items() if message.startswith("m-five-")] == [5] * len(messages)
    assert len(recorded.turns) == len(messages) + 3 * LAST
    assert sum(event.replayed for event in recorded.events) == 4 * len(messages)
    report(**figures)


async def test_fifty_at_once(laboratory: Laboratory, report: Report) -> None:
    """On one device, in four processes: all are answered, those of each process in order of arrival."""
    workers = ("wa1", "wa2", "wa3", "wa4")
    for number, name in enumerate(workers):
        ids = [f"m-{name}-{100 + n}" for n in range(50)[number::4]]
        laboratory.start(
            name,
            errands=tuple(Errand(device="one", message=id, text=f"{id} say") for id in ids),
            lease=LEASE_SECONDS,
            thinking=0.002,
        )
    await laboratory.until(lambda: len(laboratory.events("ok")) >= 50, "replies")
    recorded = await laboratory.finish()

    figures = verify(recorded)
    turns = {row.message: row.turn_no or 0 for row in recorded.messages if row.device == "one"}
    assert sorted(turns.values()) == list(range(1, 51))
    for number, name in enumerate(workers):
        mine = [turns[f"m-{name}-{100 + n}"] for n in range(50)[number::4]]
        assert mine == sorted(mine)
    report(**figures, kept=f"{len(turns)} of 50")


async def test_two_hundred_devices_for_one_slot(laboratory: Laboratory, report: Report) -> None:
    for number in range(4):
        ids = [f"m-slot-{n}" for n in range(200)[number::4]]
        book = f"book {laboratory.day}T10:00"
        laboratory.start(
            f"wa{number}",
            errands=tuple(Errand(device=f"wants-{id}", message=id, text=f"{id} {book}") for id in ids),
            lease=15.0,
        )
    await laboratory.until(lambda: len(laboratory.events("ok")) >= 200, "replies")
    recorded = await laboratory.finish()

    figures = verify(recorded)
    replies = [e.reply or "" for e in recorded.events if e.event == "ok" and e.device.startswith("wants")]
    told = Counter((Read.of(reply).did or "").split()[0] for reply in replies)
    assert told == {"booked": 1, "refused": 199}
    assert len(recorded.appointments) == 1
    report(**figures, bookings=len(recorded.appointments))


async def test_two_connections_for_two_hundred_turns(laboratory: Laboratory, report: Report) -> None:
    """In one process, at once."""
    verbs = ("say", "ring", "pass scheduling", "chime")
    ids = [f"m-crowd-{n}" for n in range(200)]
    errands = [Errand(device=f"of-{id}", message=id, text=f"{id} {verbs[n % 4]}") for n, id in enumerate(ids)]
    laboratory.start("wa1", errands=tuple(errands), pool_max=2, lease=15.0)
    most = 0
    async with asyncio.timeout(PATIENCE):
        while len(laboratory.events("ok")) < len(ids):
            most = max(most, len(await states(laboratory.dsn)))
            await asyncio.sleep(0.05)
    recorded = await laboratory.finish()

    figures = verify(recorded)
    assert len(recorded.turns) == len(ids) + LAST
    assert most <= (4 if laboratory.way.pooled else 2)
    report(**figures)


@pytest.mark.skipif(LIBFAKETIME is None, reason="libfaketime is not installed")
async def test_wrong_clocks(laboratory: Laboratory, report: Report) -> None:
    """The database's clock decides everything; the workers' clocks are a day ahead and a day behind."""
    for name, offset in (("wa1", "+25h"), ("wa2", "-25h")):
        environment = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        laboratory.start(name, environment=environment, devices=devices(4), lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(laboratory.events("ok")) >= 30, "answers")
    recorded = await laboratory.finish()
    figures = verify(recorded)
    clocks = {event.worker: event.wall for event in recorded.events}
    assert 49 * 3600 < clocks["wa1"] - clocks["wa2"] < 51 * 3600
    report(**figures)


async def test_erased_during_turns(laboratory: Laboratory, report: Report) -> None:
    for name in ("wa1", "wa2", "wa3"):
        laboratory.start(name, devices=devices(4), erases=True, lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(laboratory.events("erased")) >= 10, "erasures")
    recorded = await laboratory.finish()
    report(**verify(recorded), erased=sum(event.event == "erased" for event in recorded.events))


async def test_erased_under_a_stopped_turn(laboratory: Laboratory, report: Report) -> None:
    """The turn in which it was stopped becomes stale, whatever it was about to write."""
    hit = [v for v in victims(laboratory) if v.verb != "book" and v.at != "after_commit_before_reply"]
    running = [victim.start(laboratory, signal="SIGSTOP", lease=LEASE_SECONDS) for victim in hit]
    strikes = await struck(laboratory, hit)
    laboratory.start("wa1", erase=tuple(victim.device for victim in hit), lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(laboratory.events("erased")) == len(hit), "erasures")
    for process in running:
        process.signal(signal.SIGCONT)
    await laboratory.until(lambda: {e.message for e in laboratory.events("stale")} >= strikes.keys(), "stale turns")
    recorded = await laboratory.finish()
    figures = verify(recorded)
    report(**figures, stale_refused=f"{len(hit)} of {len(hit)}")
