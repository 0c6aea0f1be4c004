"""The laboratory: starts workers on a database, makes something go wrong, and checks what is left."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from sys import executable
from typing import Any

import asyncpg

from tests.faults import worker
from tests.faults.backends import leaked
from tests.faults.checker import violations
from tests.faults.history import Event, Logs
from tests.faults.recorded import Recorded, record
from tests.faults.worker import Orders

PATIENCE = 60.0
"""Seconds after which something that has to happen counts as failed."""

_processes = multiprocessing.get_context("forkserver")
# Imported once, and with what may be the main module: a worker then starts at once instead of in three seconds.
_processes.set_forkserver_preload([worker.__name__, "pytest"])


@dataclass(frozen=True, kw_only=True)
class Way:
    """How workers reach the database."""

    dsn: str
    statement_cache_size: int
    pooled: bool = False
    """Whether a pooler has its own connections to the server, which outlive its clients'."""


class Running:
    """A worker's process."""

    def __init__(self, orders: Orders, environment: Mapping[str, str] | None = None) -> None:
        self.name = orders.name
        self._forked: Any = None
        self._process: Popen[bytes] | None = None
        if environment is None:
            self._forked = _processes.Process(target=worker.run, args=(orders.to_json(),), name=orders.name)
            self._forked.start()
        else:
            command = [executable, "-m", worker.__name__, orders.to_json()]
            self._process = Popen(command, env={**os.environ, **environment})
        self.pid: int = self._forked.pid if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Like `Popen.returncode`; None while it lives."""
        code: int | None = self._forked.exitcode if self._process is None else self._process.poll()
        return code

    def signal(self, what: signal.Signals) -> None:
        """If it lives."""
        if self.exit_code is None:
            os.kill(self.pid, what)


class Laboratory:
    """One fault on one fresh database."""

    def __init__(self, *, way: Way, dsn: str, folder: Path, seed: int) -> None:
        """`dsn` reaches the database directly, without what is put in the workers' way."""
        self.dsn = dsn
        self.way = way
        """How workers that are started from now on reach the database."""
        self.seed = seed
        self.workers: list[Running] = []
        self.day = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
        """The day on which there is something to book."""
        self._folder = folder
        self._logs = Logs(folder)

    async def prepare(self) -> None:
        """Creates something to book."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(_CATALOGUE)
        finally:
            await connection.close()

    def start(self, name: str, *, environment: Mapping[str, str] | None = None, **orders: Any) -> Running:
        """Starts a worker; with an `environment` it is a new process instead of a fork."""
        told = Orders(
            name=name,
            dsn=self.way.dsn,
            statement_cache_size=self.way.statement_cache_size,
            log=str(self._folder / f"{name}.jsonl"),
            seed=self.seed,
            day=self.day,
        )
        running = Running(replace(told, **orders), environment)
        self.workers.append(running)
        return running

    def events(self, *kinds: str) -> tuple[Event, ...]:
        """What the workers have logged so far."""
        return tuple(event for event in self._logs.events() if not kinds or event.event in kinds)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for it; a broken worker ends the wait."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self._check_workers()
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
            await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """All workers take orders."""
        await self.until(lambda: len(self.events("ready")) == len(self.workers), "the workers to be ready")

    async def finish(self) -> Recorded:
        """Once the fault is over: lets every worker prove that and end, has what killed workers left behind finished,
        and records what is there then."""
        await self.ready()
        healed_at = time.monotonic()
        await self._end()
        if await self._open_turns():
            self.start("wr1", recovers=True)
            while await self._open_turns():
                self._check_workers()
                assert time.monotonic() < healed_at + PATIENCE, "what was left behind was not recovered"
                await asyncio.sleep(0.05)
            await self._end()
        left = await leaked(self.dsn, allowed="idle" if self.way.pooled else "")
        return await record(self.dsn, events=self.events(), healed_at=healed_at, leaked=len(left))

    def kill(self) -> None:
        """Kills the workers that still run."""
        for running in self.workers:
            running.signal(signal.SIGKILL)

    async def _end(self) -> None:
        await self.ready()
        for running in self.workers:
            running.signal(signal.SIGTERM)
        await self.until(lambda: all(w.exit_code is not None for w in self.workers), "the workers to end")
        self._check_workers()

    async def _open_turns(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        try:
            sql = "SELECT count(*) FROM conversation_states WHERE claim_id IS NOT NULL"
            count: int = await connection.fetchval(sql)
        finally:
            await connection.close()
        return count

    def _check_workers(self) -> None:
        crashed = [f"{event.worker}: {event.error}" for event in self.events("crashed")]
        assert not crashed, "\n".join(crashed)
        codes = {running.name: running.exit_code for running in self.workers}
        assert set(codes.values()) <= {None, 0, -signal.SIGKILL}, codes


def verify(recorded: Recorded) -> dict[str, int]:
    """Asserts that nothing is violated, and returns the figures of the run."""
    found = violations(recorded)
    assert not found, f"{len(found)} violations\n" + "\n".join(found[:20])
    assert not recorded.leaked, f"{recorded.leaked} connections leaked"
    return {
        "operations": sum(event.event == "invoke" for event in recorded.events),
        "turns": len(recorded.turns),
        "violations": len(found),
        "leaked": recorded.leaked,
    }


_CATALOGUE = """
    INSERT INTO appointment_services (name, minutes) VALUES ('Slot', 15);
    INSERT INTO appointment_providers (name, time_zone) VALUES ('Anybody', 'UTC');
    INSERT INTO appointment_offers SELECT provider_id, service_id FROM appointment_providers, appointment_services;
    INSERT INTO appointment_hours SELECT provider_id, day, '00:00', '24:00'
        FROM appointment_providers, generate_series(1, 7) AS day;
"""
