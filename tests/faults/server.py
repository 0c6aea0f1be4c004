"""A PostgreSQL of a test's own, with its safe defaults (fsync on), that can be stopped and started under its
clients."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import asyncpg

from moorline.embedded.cluster import Cluster
from moorline_migrations import SHIPPED, migrate


class Server:
    """The cluster in a folder. Its parent folder must have a short name, because a socket's path is bounded."""

    def __init__(self, cluster: Cluster, token: int) -> None:
        self.disk = cluster.folder.parent
        """The parent folder, where it may write."""
        self._cluster = cluster
        self._token = token

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """A new cluster, whose server is started now and stopped at the end."""
        cluster = Cluster.at(folder)
        token = os.open(folder.parent / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        server = cls(cluster, token)
        cluster.create()
        cluster.start(token=token)
        try:
            yield server
        finally:
            server._stop("immediate")
            os.close(token)

    @classmethod
    @contextmanager
    def following(cls, primary: Self, folder: Path) -> Iterator[Self]:
        """A streaming replica of another server, started now and stopped at the end."""
        made = primary._cluster
        made.copy(folder, primary._dsn("postgres"))
        (folder / "standby.signal").touch()
        with (folder / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host={made.folder} port=5432 user=postgres'\n")
        cluster = Cluster.at(folder)
        token = os.open(folder.parent / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        replica = cls(cluster, token)
        cluster.start(token=token)
        try:
            yield replica
        finally:
            replica._stop("immediate")
            os.close(token)

    def same_database(self, dsn: str) -> str:
        """The DSN of this server's database that has the name of another server's."""
        return self._dsn(urlsplit(dsn).path.removeprefix("/"))

    @contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a new database with our schema, which is never dropped."""
        name = f"test_{uuid.uuid4().hex}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        asyncio.run(migrate(self._dsn(name), components=SHIPPED))
        yield self._dsn(name)

    async def start(self) -> float:
        """Starts the server and returns when it accepted connections, on the monotonic clock."""
        accepting = asyncio.create_task(self._accepting())
        await asyncio.to_thread(self._cluster.start, token=self._token)
        return await accepting

    async def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """`immediate` is like a power failure: the next start recovers from the log."""
        await asyncio.to_thread(self._stop, mode)

    @property
    def runs(self) -> bool:
        """Whether it accepts connections."""
        return self._cluster.dsn() is not None

    async def _accepting(self) -> float:
        while True:
            try:
                connection = await asyncpg.connect(self._dsn("postgres"))
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.01)
                continue
            accepted = time.monotonic()
            await connection.close()
            return accepted

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._dsn("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._cluster.folder}&port=5432"

    def _stop(self, mode: str) -> None:
        account = self._cluster.account
        as_account = account.process if account else {}
        with self._cluster.opened(self._cluster.folder) as (name, descriptors):
            command = [*self._cluster.stop_command(name), "-m", mode]  # the last mode given counts
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", pass_fds=descriptors, **as_account)
