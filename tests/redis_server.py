"""A real Redis of a test's own, which can be stopped, started, cut off and given back an older copy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError

REDIS = shutil.which("redis-server")


class RedisProcess:
    """The server, which listens on a port of this machine."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = "" if self._password is None else f":{self._password}@"
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis.from_url(self.url)

    def start(self) -> None:
        """Returns when it answers. It loads the copy that is in its folder, if there is one."""
        assert REDIS is not None
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "loglevel": "warning"}
        if self._password is not None:
            options["requirepass"] = self._password
        command = [REDIS, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with self.client() as client:
            while time.monotonic() < deadline:
                with suppress(ConnectionError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise AssertionError("Redis did not start")

    def kill(self) -> None:
        """It dies without saving anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def copy(self) -> bytes:
        """Everything that it holds, as a file from which it can start."""
        with self.client() as client:
            client.save()
        return (self.folder / "dump.rdb").read_bytes()

    def roll_back(self, copy: bytes) -> None:
        """It dies, and another one takes its place with the older copy."""
        self.kill()
        (self.folder / "dump.rdb").write_bytes(copy)
        self.start()


@contextmanager
def running_redis(*, password: str | None = None) -> Iterator[RedisProcess]:
    """A server with nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="moorline-redis-"))
    server = RedisProcess(folder, password=password)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


@dataclass
class SlowLine:
    """A line to a server that can be delayed, cut off, or made to answer with something else."""

    to_port: int
    port: int = 0
    delay: float = 0.0
    """Seconds that every answer takes."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Unset: nothing comes through."""
    garbage: bytes | None = None
    """What is answered in place of the server's answers."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Drops every connection."""
        for task in self._tasks:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
            try:
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer, answers=True))
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await reader.read(65536):
            if answers and self.delay:
                await asyncio.sleep(self.delay)
            await self.held.wait()
            writer.write(self.garbage if answers and self.garbage is not None else data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def slow_line(to_port: int) -> AsyncIterator[SlowLine]:
    line = SlowLine(to_port)
    line.held.set()
    listener = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = listener.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        listener.close()
        line.held.set()
        while line._tasks:
            line.cut()
            await asyncio.wait(line._tasks, timeout=1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
