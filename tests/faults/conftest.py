"""Laboratories, each on a fresh database, and the figures of a run."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.laboratory import Laboratory, Way
from tests.faults.server import Server
from tests.pgbouncer import needs_pgbouncer, pooled
from tests.spaces import a_space

Report = Callable[..., None]

SMALL = 200
"""MiB of a disk that is soon full; a new cluster takes a quarter of it."""


@pytest.fixture
def seed() -> int:
    """The seed of everything random in a test: `FAULTS_SEED`, else 1."""
    return int(os.environ.get("FAULTS_SEED", "1"))


@pytest.fixture
def busy(request: pytest.FixtureRequest) -> float:
    """Seconds that a machine busy with other tests may add to a figure; the long faults run alone."""
    return 0.0 if request.node.get_closest_marker("laboratory") else 4.0


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Takes the figures of a run by name, to be reported."""

    def take(**figures: object) -> None:
        for name, value in figures.items():
            record_property(name, value)

    return take


@pytest.fixture(params=["direct", pytest.param("pgbouncer", marks=needs_pgbouncer)])
def way(request: pytest.FixtureRequest) -> str:
    """How workers reach the database."""
    return str(request.param)


@pytest.fixture
def reached(dsn: str, way: str) -> Iterator[Way]:
    """A database of the run's server."""
    with _reached(dsn, way) as reached:
        yield reached


@pytest.fixture
def laboratory(dsn: str, reached: Way, seed: int, tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory on a database of the run's server."""
    with _laboratory(dsn, reached, seed, tmp_path) as laboratory:
        yield laboratory


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server to be stopped and started."""
    with a_space() as folder, Server.running(folder / "data") as server:
        yield server


@pytest.fixture
def server_laboratory(server: Server, way: str, seed: int, tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory on a database of the server that is to be stopped."""
    with (
        server.database() as dsn,
        _reached(dsn, way) as reached,
        _laboratory(dsn, reached, seed, tmp_path) as laboratory,
    ):
        yield laboratory


@pytest.fixture(scope="module")
def small_server() -> Iterator[Server]:
    """A server on a disk that is soon full."""
    with a_space() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}m,mode=755", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no small file system can be mounted here: that needs root")
        try:
            with Server.running(folder / "data") as server:
                yield server
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_laboratory(small_server: Server, way: str, seed: int, tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory on a database of the server with the small disk."""
    with (
        small_server.database() as dsn,
        _reached(dsn, way) as reached,
        _laboratory(dsn, reached, seed, tmp_path) as laboratory,
    ):
        yield laboratory


@contextmanager
def _reached(dsn: str, way: str) -> Iterator[Way]:
    if way == "direct":
        yield Way(dsn=dsn, statement_cache_size=100)
        return
    with pooled(dsn, connections=4) as pooler:
        yield Way(dsn=pooler, statement_cache_size=0, pooled=True)


@contextmanager
def _laboratory(dsn: str, reached: Way, seed: int, folder: Path) -> Iterator[Laboratory]:
    laboratory = Laboratory(way=reached, dsn=dsn, folder=folder, seed=seed)
    asyncio.run(laboratory.prepare())
    try:
        yield laboratory
    finally:
        laboratory.kill()
