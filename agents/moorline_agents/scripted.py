"""A model that answers what it was told to: for tests and benchmarks, in process or as a small HTTP server.

In process a `Script` goes through `transport.rule_client`; for several processes `serve` puts any rules on a
socket, where `OPENAI_BASE_URL` finds them. `python -m moorline_agents.scripted --help` runs one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorline_agents.transport import Call, ModelReply, RawReply, pieces_of, respond

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from moorline_agents.transport import ModelRequest, Reply, Rules


class Script:
    """Rules that give the next of `replies` (a text is an answer of that text), or what `rules` says.

    Raises `AssertionError` when no reply is left.
    """

    def __init__(self, *replies: Reply | str, rules: Rules | None = None) -> None:
        self.requests: list[ModelRequest] = []
        """Everything the model was shown so far, in order."""
        self._left = deque(replies)
        self._rules = rules

    def __call__(self, request: ModelRequest) -> Reply | Awaitable[Reply]:
        self.requests.append(request)
        if self._rules is not None:
            return self._rules(request)
        if not self._left:
            raise AssertionError(f"The script has no reply for request {len(self.requests)}: give it more.")
        reply = self._left.popleft()
        return ModelReply(text=reply) if isinstance(reply, str) else reply


def error_reply(status: int, *, code: str | None = None, retry_after_ms: int | None = None) -> RawReply:
    """An error as chat-completions servers send it."""
    headers = {"content-type": "application/json"}
    if retry_after_ms is not None:
        headers["retry-after-ms"] = str(retry_after_ms)
    error = {"message": f"scripted error {status}", "type": "scripted", "param": None, "code": code}
    return RawReply(status=status, headers=headers, pieces=(json.dumps({"error": error}).encode(),))


@asynccontextmanager
async def serve(rules: Rules, *, port: int = 0) -> AsyncIterator[str]:
    """Serves `rules` on this machine and gives the base URL, for `OPENAI_BASE_URL`; port 0 picks a free one.

    A request the rules raise at is answered with a status 500 that the client does not retry.
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


def _reply_of(line: dict[str, Any]) -> Reply:
    if "status" in line:
        return error_reply(line["status"], code=line.get("code"), retry_after_ms=line.get("retry_after_ms"))
    calls = tuple(Call(name=call["name"], arguments=call["arguments"]) for call in line.get("calls", ()))
    return ModelReply(text=line.get("text"), calls=calls)


def _recorded(rules: Rules, file: Path) -> Rules:
    def record(request: ModelRequest) -> Reply | Awaitable[Reply]:
        shown = {"messages": request.messages, "tools": list(request.functions)}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(shown) + "\n")
        return rules(request)

    return record


def main() -> None:
    """Runs a server until it is killed; its base URL is the first line on standard output."""
    parser = argparse.ArgumentParser(prog="python -m moorline_agents.scripted", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument(
        "--replies",
        type=Path,
        help='a line each: {"text": ...}, {"calls": [{"name": ..., "arguments": {...}}]} or {"status": 429}; '
        "without it the rehearsal model answers",
    )
    parser.add_argument("--record", type=Path, help="a file that gets a line for each request")
    options = parser.parse_args()
    rules: Rules
    if options.replies is None:
        from moorline_agents.rehearsal import rehearse  # noqa: PLC0415 - the script needs no rehearsal

        rules = rehearse
    else:
        lines = options.replies.read_text(encoding="utf-8").splitlines()
        rules = Script(*(_reply_of(json.loads(line)) for line in lines))
    if options.record is not None:
        rules = _recorded(rules, options.record)
    asyncio.run(_run(rules, options.port))


async def _run(rules: Rules, port: int) -> None:
    async with serve(rules, port=port) as base_url:
        print(base_url, flush=True)  # noqa: T201 - this is what whoever started it waits for
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
