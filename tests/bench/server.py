"""The PostgreSQL for all measurements: a server of its own, with default settings, durable."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import asyncpg

from moorline_migrations import SHIPPED, migrate
from tests.faults.server import Server


class Databases:
    """The databases of the server."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The DSN of a database with our schema, after the server has finished making it; dropped at the end."""
        with self._copy(self._migrated) as dsn:
            execute(dsn, "CHECKPOINT")
            yield dsn

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The DSN of a database with nothing in it; dropped at the end."""
        with self._copy("template1") as dsn:
            yield dsn

    @cached_property
    def _migrated(self) -> str:
        """The name of a database with our schema, to be copied: nobody may connect to it."""
        name = "bench_migrated"
        execute(self._dsn, f"CREATE DATABASE {name}")
        asyncio.run(migrate(self._named(name), components=SHIPPED))
        return name

    @contextmanager
    def _copy(self, template: str) -> Iterator[str]:
        name = f"bench_{uuid.uuid4().hex}"
        execute(self._dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self._named(name)
        finally:
            execute(self._dsn, f"DROP DATABASE {name} WITH (FORCE)")

    def _named(self, name: str) -> str:
        return urlsplit(self._dsn)._replace(path=f"/{name}").geturl()

    def settings(self, *names: str) -> dict[str, str]:
        """The server's values of these settings."""
        return {name: execute(self._dsn, "SELECT current_setting($1) AS value", name)[0]["value"] for name in names}

    def flush_seconds(self) -> float:
        """The median time of a transaction that does nothing but insert a row."""
        return asyncio.run(_flush_seconds(self._dsn))


@contextmanager
def serving() -> Iterator[Databases]:
    """A server in a temporary folder, while the block runs."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Server.running(Path(folder) / "data") as server,
        server.database() as dsn,
    ):
        yield Databases(dsn)


def execute(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Runs a statement on a connection of its own."""
    return asyncio.run(fetch(dsn, sql, *arguments))


async def fetch(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """The same inside an event loop."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


async def _flush_seconds(dsn: str) -> float:
    connection = await asyncpg.connect(dsn)
    times = []
    try:
        await connection.execute("CREATE TABLE flushes (number integer)")
        for number in range(200):
            began = time.perf_counter()
            await connection.execute("INSERT INTO flushes VALUES ($1)", number)
            times.append(time.perf_counter() - began)
        await connection.execute("DROP TABLE flushes")
    finally:
        await connection.close()
    return median(times)
