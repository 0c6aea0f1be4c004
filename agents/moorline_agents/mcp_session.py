"""The session with an MCP server: opened when it is first needed, shared by all turns of an event loop, and opened
again at the next call after the server was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError
from mcp_types import CONNECTION_CLOSED, CallToolResult, RequestParamsMeta, ToolListChangedNotification
from mcp_types import Tool as ServerTool

logger = logging.getLogger("moorline.mcp")

MOST_TOOLS = 128
"""Tools of a server that are looked at."""

_CLOSING = 10.0
"""Seconds that a server may take to end."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a server is reached: the command that starts it, or its URL."""

    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    connect_timeout: float

    @asynccontextmanager
    async def client(self, on_message: Any) -> AsyncIterator[Client]:
        """A client in a session. A process that is started for it inherits a few harmless variables and no other."""
        async with AsyncExitStack() as stack:
            target: Any
            if self.url is None:
                program, *arguments = self.command
                target = StdioServerParameters(command=program, args=arguments, env=dict(self.env), cwd=self.cwd)
            else:
                http = httpx2.AsyncClient(
                    headers=dict(self.headers), timeout=httpx2.Timeout(self.connect_timeout, read=None)
                )
                target = streamable_http_client(self.url, http_client=await stack.enter_async_context(http))
            yield await stack.enter_async_context(Client(target, message_handler=on_message, cache=None))


class SessionLost(Exception):
    """The server cannot be reached, or was lost. `sent` says whether the call may have reached it."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class Session:
    """A session, in a task of its own, in which what it opened is closed again: others may be cancelled at any time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._end = asyncio.Event()
        self.changed = True
        """Whether the tools may be others than those that were listed last."""

    async def list_tools(self) -> Sequence[ServerTool]:
        """The server's tools, in its order. Raises `SessionLost` and `MCPError`."""
        client = await self._opened()
        self.changed = False
        listed: list[ServerTool] = []
        cursor: str | None = None
        try:
            async with self._watched(), asyncio.timeout(self._server.connect_timeout):
                while len(listed) < MOST_TOOLS:
                    page = await client.list_tools(cursor=cursor)
                    listed += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        break
        except BaseException:
            self.changed = True
            raise
        return listed[:MOST_TOOLS]

    async def call(self, name: str, arguments: Mapping[str, Any], meta: dict[str, Any]) -> CallToolResult:
        """What the tool gave. Raises `SessionLost`, also if the tools are not known to be those that were listed last,
        and `MCPError` if the server refuses the call."""
        client = None if self.changed else self._client
        if client is None:
            raise SessionLost(sent=False)
        async with self._watched():
            return await client.call_tool(name, dict(arguments), meta=cast("RequestParamsMeta", meta) or None)

    async def close(self) -> None:
        task, self._task, self._client = self._task, None, None
        if task is None:
            return
        self._end.set()
        _, running = await asyncio.wait([task], timeout=_CLOSING)
        for each in running:
            each.cancel()

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is None or self._task is None or self._task.done():
                await self.close()
                self._client = await self._open()
            return self._client

    async def _open(self) -> Client:
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._end, self.changed = asyncio.Event(), True
        self._task = asyncio.create_task(self._run(ready, self._end))
        try:
            async with asyncio.timeout(self._server.connect_timeout):
                return await asyncio.shield(ready)
        except Exception as error:
            self._end.set()
            self._task.cancel()
            self._task = None
            raise SessionLost(sent=False) from error

    async def _run(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        try:
            async with self._server.client(self._on_message) as client:
                ready.set_result(client)
                await self._listen(client, end)
        except Exception as error:
            if ready.done():
                logger.info("A session with an MCP server ended (%s).", type(error).__name__)
            else:
                ready.set_exception(error)
        finally:
            ready.cancel()
            if end is self._end:
                self.changed = True

    async def _listen(self, client: Client, end: asyncio.Event) -> None:
        """Until the end: newer servers tell what changed to who asks for it, older ones tell it anyway."""
        ended = asyncio.create_task(end.wait())
        listening = asyncio.create_task(self._subscribe(client))
        try:
            await ended
        finally:
            for task in (ended, listening):
                task.cancel()
            await asyncio.gather(ended, listening, return_exceptions=True)

    async def _subscribe(self, client: Client) -> None:
        with suppress(ListenNotSupportedError, MCPError, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.changed = True

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.changed = True

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """What is asked in the block fails if the session is lost, which is then opened again at the next call."""
        try:
            yield
        except Exception as error:
            if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
                raise
            self._client, self.changed = None, True
            raise SessionLost(sent=True) from error
