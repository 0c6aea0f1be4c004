"""The bad MCP server at a URL. It keeps sessions, and forgets them when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.agents.mcp import server as bad


@dataclass
class Far:
    url: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """The head of each request, in small letters, and what was sent with it."""
    sessions: set[str] = field(default_factory=set)
    unknown: str = "404 Not Found"
    """The status with which requests of other sessions are answered."""
    status: int | None = None
    """The status with which calls are answered, instead of their results."""

    def heads(self, method: str) -> list[str]:
        return [head for head, body in self.requests if body.get("method") == method]

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
        body = json.loads(await reader.readexactly(length) or "{}")
        self.requests.append((head, body))
        session = head.partition("mcp-session-id: ")[2].split("\r\n")[0]
        lines, told = [], b""
        if session and session not in self.sessions:
            status = self.unknown
        elif body.get("method") == "tools/call" and self.status is not None:
            status = f"{self.status} Failed"
        elif (response := bad.answer(body)) is not None:
            status, told = "200 OK", json.dumps(response).encode()
            lines.append("content-type: application/json")
        else:
            status = "202 Accepted" if body else "405 Method Not Allowed"
        if body.get("method") == "initialize":
            self.sessions.add(f"s{len(self.requests)}")
            lines.append(f"mcp-session-id: s{len(self.requests)}")
        lines = [f"HTTP/1.1 {status}", *lines, f"content-length: {len(told)}", "connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + told)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def far_server() -> AsyncIterator[Far]:
    far = Far()
    async with await asyncio.start_server(far.respond, "127.0.0.1", 0) as listening:
        far.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
        yield far
