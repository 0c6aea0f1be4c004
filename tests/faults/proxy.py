"""A proxy in front of PostgreSQL that counts what clients send and makes the network fail.

It understands just enough of the wire protocol. Clients reach it by TCP without TLS; it reaches the server or the
pooler through a Unix socket.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from moorline_checkpoint.database import STATEMENTS
from moorline_migrations.statements import load

Direction = Literal["both", "to_server", "to_client"]

SOON = 0.01
"""The most seconds between a send and the reset of a connection."""

_NAMES = {statement.sql: name for name, statement in load(STATEMENTS, "public").items()}
_STARTUP = 196608  # the protocol's version; other numbers in its place are requests for something else
_ARRAY = struct.Struct(">iii8x")  # dimensions, whether it has NULLs, type of the elements; length and lower bound
_TEXT = 25  # the type's OID
_RESET = struct.pack("ii", 1, 0)  # closing a socket that lingers for 0 s sends a reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """What a client sent before it waited for an answer: a simple query, or messages up to a Sync or Flush."""

    statement: str
    """The name of one of the checkpointer's statements, else the SQL."""
    prepares: bool = False
    """Whether it was only prepared, not run."""
    devices: tuple[str, ...] = ()
    """The statement's first argument: in a turn, the device or all devices."""


def _never(_: Send) -> bool:
    return False


def _nothing() -> None:
    pass


class Proxy:
    """The proxy, while `proxied` runs it."""

    def __init__(self, dsn: str) -> None:
        self._server = urlsplit(dsn)
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self.sends: list[Send] = []
        """Everything that clients sent after they had logged in."""
        self.loses_answer: Callable[[Send], bool] = _never
        """Called for each send that runs something, before it is passed on. True: the server does it, but the client
        loses its connection instead of getting the answer."""
        self.after_send: Callable[[], None] = _nothing
        """Called for each send before it is passed on."""
        self.delay = 0.0
        """Seconds of delay in each direction."""
        self.gates = {"to_server": asyncio.Event(), "to_client": asyncio.Event()}
        for gate in self.gates.values():
            gate.set()

    @property
    def dsn(self) -> str:
        """The DSN of the database through the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self._port}{self._server.path}?sslmode=disable"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    async def open(self) -> None:
        """Lets clients connect; the port never changes."""
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuses connections from now on and resets the existing ones."""
        if self._listener is not None:
            self._listener.close()
        for gate in self.gates.values():
            gate.set()
        while self._links:  # one that was just being accepted appears only now
            self.reset()
            await asyncio.wait(self._links, timeout=SOON)

    def reset(self, chance: Random | None = None) -> None:
        """Resets every connection; with `chance` a random one, if there is any."""
        links = list(self._links.values())
        for link in links if chance is None else links and [chance.choice(links)]:
            link.abort()

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Nothing listens while the block runs."""
        await self.close()
        yield
        await self.open()

    @contextmanager
    def black_hole(self, direction: Direction = "both") -> Iterator[None]:
        """While the block runs, connections are accepted but nothing comes through, not even that one side has gone. At
        the end those connections are reset, and what they carried is lost."""
        gates = [gate for name, gate in self.gates.items() if direction in ("both", name)]
        for gate in gates:
            gate.clear()
        try:
            yield
        finally:
            self.reset()
            for gate in gates:
                gate.set()

    @contextmanager
    def resetting(self, *, seed: int, every: int) -> Iterator[None]:
        """While the block runs, a random connection is reset soon after about one of `every` sends."""
        chance = Random(seed)  # noqa: S311 - repeatable, no secret

        def perhaps() -> None:
            if chance.random() * every < 1:
                asyncio.get_running_loop().call_later(chance.uniform(0, SOON), self.reset, chance)

        self.after_send = perhaps
        try:
            yield
        finally:
            self.after_send = _nothing

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the server."""
        folder = parse_qs(self._server.query)["host"][0]
        return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        task = asyncio.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(self._links.pop)


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy to the database of a DSN that names a Unix socket."""
    proxy = Proxy(dsn)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()


class _Link:
    """One client's connection, and the matching one to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]
        self._texts: dict[bytes, str] = {}
        """What the client has prepared, by name."""
        self._loses_answer = False
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def abort(self) -> None:
        """Resets the connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def run(self) -> None:
        reader, writer = self._client
        try:
            await self._proxy.gates["to_server"].wait()
            server_reader, server_writer = await self._proxy.connect()
            self._writers.append(server_writer)
            await asyncio.gather(self._requests(reader, server_writer), self._answers(server_reader, writer))
        finally:
            self.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            startup = await reader.readexactly(8)
            startup += await reader.readexactly(int.from_bytes(startup[:4], "big") - 8)
            await self._pass_on(startup, "to_server", writer)
            frames: list[bytes] = []
            while int.from_bytes(startup[4:8], "big") == _STARTUP:
                frames.append(await _frame(reader))
                if frames[-1][:1] in b"QSHX":
                    self._noted(frames)
                    await self._pass_on(b"".join(frames), "to_server", writer)
                    frames.clear()
            await reader.read()  # the client waits until the server has closed
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await self._gone("to_server")

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                frame = await _frame(reader)
                if not self._loses_answer:
                    await self._pass_on(frame, "to_client", writer)
                elif frame[:1] == b"Z":  # the server is done
                    self.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await self._gone("to_client")

    async def _gone(self, direction: Literal["to_server", "to_client"]) -> None:
        await self._proxy.gates[direction].wait()
        self.abort()

    async def _pass_on(
        self, data: bytes, direction: Literal["to_server", "to_client"], writer: asyncio.StreamWriter
    ) -> None:
        if self._proxy.delay:
            await asyncio.sleep(self._proxy.delay)
        await self._proxy.gates[direction].wait()
        writer.write(data)
        await writer.drain()

    def _noted(self, frames: list[bytes]) -> None:
        send = self._send(frames)
        if send is not None:
            self._proxy.sends.append(send)
            self._proxy.after_send()
            self._loses_answer = not send.prepares and self._proxy.loses_answer(send)

    def _send(self, frames: list[bytes]) -> Send | None:
        """What these messages ask for; None if they end the session."""
        parsed = text = ""
        devices: tuple[str, ...] = ()
        runs = False
        for frame in frames:
            kind, body = frame[:1], frame[5:]
            if kind == b"Q":
                text, runs = body.rstrip(b"\0").decode(), True
            elif kind == b"P":
                name, sql, _ = body.split(b"\0", 2)
                parsed = text = self._texts[name] = sql.decode()
            elif kind == b"B":
                _, name, rest = body.split(b"\0", 2)
                text, devices, runs = self._texts.get(name, parsed), _first_argument(rest), True
        if not text:
            return None
        return Send(statement=_NAMES.get(text, text), prepares=not runs, devices=devices)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def _first_argument(bind: bytes) -> tuple[str, ...]:
    """The first argument in the rest of a Bind message, a text or an array of texts: formats, then arguments, each list
    preceded by its length."""
    at = 2 + 2 * int.from_bytes(bind[:2], "big")
    if not int.from_bytes(bind[at : at + 2], "big"):
        return ()
    argument = _sized(bind, at + 2)
    if argument is None:
        return ()
    if len(argument) < _ARRAY.size or _ARRAY.unpack_from(argument)[::2] != (1, _TEXT):
        return (argument.decode(errors="replace"),)
    elements = []
    at = _ARRAY.size
    while at < len(argument):
        element = _sized(argument, at) or b""
        elements.append(element.decode())
        at += 4 + len(element)
    return tuple(elements)


def _sized(data: bytes, at: int) -> bytes | None:
    """The value at that point, preceded by its length; None for NULL."""
    size = int.from_bytes(data[at : at + 4], "big", signed=True)
    return None if size < 0 else data[at + 4 : at + 4 + size]
