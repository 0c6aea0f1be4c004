"""Counts what goes to the server: sends, by a proxy in a process of its own, and flushes of the write-ahead log."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from tests.bench.server import fetch
from tests.faults.proxy import proxied

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized


@contextmanager
def counted(dsn: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """The DSN through a proxy, and a function that returns how many sends have gone through it so far."""
    processes = multiprocessing.get_context("spawn")
    count = processes.Value("q", 0)
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_proxy, args=(dsn, theirs, count), daemon=True)
    process.start()
    try:
        yield ours.recv(), lambda: count.value
    finally:
        ours.send(None)
        process.join()


def _proxy(dsn: str, told: Connection, count: Synchronized[int]) -> None:
    def one_more() -> None:
        count.value += 1

    async def serve() -> None:
        async with proxied(dsn) as proxy:
            proxy.after_send = one_more
            told.send(proxy.dsn)
            await asyncio.to_thread(told.recv)

    asyncio.run(serve())


async def alone(dsn: str) -> None:
    """Returns when no one else is connected to the database: only then has every process reported its statistics."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(30):
        while (await fetch(dsn, others))[0]["count"]:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def flushes(dsn: str) -> int:
    """How often all processes of the server have flushed the write-ahead log to the disk."""
    rows = await fetch(dsn, "SELECT coalesce(sum(fsyncs), 0)::bigint AS flushes FROM pg_stat_io WHERE object = 'wal'")
    return int(rows[0]["flushes"])


async def transactions(dsn: str) -> int:
    """How many transactions were committed in the database, including those that only read."""
    rows = await fetch(dsn, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(rows[0]["xact_commit"])
