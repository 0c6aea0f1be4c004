"""The server goes away under the workers, or its disk is full: nothing is half done, and they go on when it is back."""

import asyncio
from collections.abc import Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.conftest import Report
from tests.faults.history import Event
from tests.faults.laboratory import Laboratory, verify
from tests.faults.server import Server
from tests.faults.test_faults import LEASE_SECONDS, devices
from tests.faults.worker import chance_of

STOPS = [2, pytest.param(10, marks=pytest.mark.laboratory)]


def errors(events: Sequence[Event]) -> set[str]:
    return {event.error.partition("(")[0] for event in events if event.error}


@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_server_stopped(
    *,
    server_laboratory: Laboratory,
    server: Server,
    way: str,
    mode: Literal["fast", "immediate"],
    stops: int,
    busy: float,
    report: Report,
) -> None:
    laboratory = server_laboratory
    chance = chance_of(laboratory.seed)
    for name in ("wa1", "wa2"):
        laboratory.start(name, devices=devices(30), lease=LEASE_SECONDS)
    await laboratory.ready()
    waited = []
    for _ in range(stops):
        await asyncio.sleep(0.5 + chance.random())
        await server.stop(mode)
        await asyncio.sleep(chance.random())
        accepted = await server.start()
        waited.append(await first_success(laboratory, since=accepted) - accepted)
    recorded = await laboratory.finish()

    figures = verify(recorded)
    assert errors(recorded.events) <= {"StoreUnavailable", "StaleTurn", "SessionBusy"}
    assert max(waited) <= (1 if way == "direct" else 2) + busy
    report(**figures, first_success=max(waited))


async def first_success(laboratory: Laboratory, *, since: float) -> float:
    def successes() -> list[float]:
        return [event.at for event in laboratory.events("ok") if event.at > since]

    await laboratory.until(lambda: bool(successes()), "an answer")
    return min(successes())


async def test_disk_full(small_laboratory: Laboratory, small_server: Server, report: Report) -> None:
    laboratory = small_laboratory
    for name in ("wa1", "wa2"):
        laboratory.start(name, devices=devices(12), lease=LEASE_SECONDS)
    await laboratory.until(lambda: len(laboratory.events("ok")) >= 10, "answers")
    ballast = small_server.disk / "ballast"
    fill(ballast)
    await laboratory.until(lambda: len(laboratory.events("fail", "info")) >= 10, "failures")
    ballast.unlink()
    recorded = await laboratory.finish()

    figures = verify(recorded)
    full = [e for e in recorded.events if e.event in ("fail", "info") and "disk" in (e.error or "")]
    assert errors(recorded.events) <= {"StoreUnavailable", "StaleTurn", "SessionBusy"}
    assert full
    report(**figures, refused=len(full))


def fill(file: Path) -> None:
    """Until nothing more fits on its disk."""
    with file.open("wb", buffering=0) as ballast:
        for size in (2**20, 2**12):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as error:
                assert error.errno == ENOSPC  # noqa: PT017 - this is what it waits for
