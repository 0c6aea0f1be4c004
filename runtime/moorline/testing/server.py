"""Rules behind a small HTTP server, for tests with several processes."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from moorline_agents.transport import RawReply, pieces_of, respond

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from moorline_agents.transport import Rules


@asynccontextmanager
async def serve(rules: Rules, *, port: int = 0) -> AsyncIterator[str]:
    """Serves `rules` on this machine and gives the base URL, for `OPENAI_BASE_URL`; port 0 picks a free one.

    If the rules raise, the request is answered with a status 500 that the client does not retry.
    """
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(rules, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        open_ones = tuple(connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def _converse(rules: Rules, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            body = await _read_body(reader)
            await _write(writer, await _answer(rules, body))
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client is done, or went away as clients do
    finally:
        writer.close()


async def _answer(rules: Rules, body: bytes) -> RawReply:
    try:
        return await respond(rules, body)
    except Exception as error:
        text = json.dumps({"error": {"message": f"{type(error).__name__}: {error}", "type": "scripted"}})
        return RawReply(status=500, headers={"x-should-retry": "false"}, pieces=(text.encode(),))


async def _read_body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = (line.partition(b":") for line in head.lower().splitlines())
    length = next((int(value) for name, _, value in fields if name == b"content-length"), 0)
    return await reader.readexactly(length)


async def _write(writer: asyncio.StreamWriter, reply: RawReply) -> None:
    head = [f"HTTP/1.1 {reply.status} scripted", "transfer-encoding: chunked"]
    head += (f"{name}: {value}" for name, value in reply.headers.items())
    writer.write("\r\n".join([*head, "", ""]).encode())
    async for piece in pieces_of(reply):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
