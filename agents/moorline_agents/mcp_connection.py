"""A connection to an MCP server, by the official SDK. What it opened is closed again, however it ends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
from httpx2 import codes
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import CONNECTION_CLOSED, ToolListChangedNotification

logger = logging.getLogger("moorline.mcp")

CALL_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("CALL_HEADERS")
"""Headers of the request that is being sent. The SDK sends it in the context of who asked for it."""

_CLOSING = 10.0
"""Seconds that closing may take before it is cut short. A process is killed within that time."""

_PAUSE = 30.0
"""Seconds before a server that no longer says what changed is asked to say it again."""


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
    async def client(self, on_message: Any, on_response: Any) -> AsyncIterator[Client]:
        """A client in a session. A process that is started for it inherits a few harmless variables and no other."""
        async with AsyncExitStack() as stack:
            target: Any
            if self.url is None:
                program, *arguments = self.command
                target = StdioServerParameters(command=program, args=arguments, env=dict(self.env), cwd=self.cwd)
            else:
                http = httpx2.AsyncClient(
                    headers=dict(self.headers),
                    timeout=httpx2.Timeout(self.connect_timeout, read=None),
                    event_hooks={"request": [_with_call_headers], "response": [on_response]},
                )
                target = streamable_http_client(self.url, http_client=await stack.enter_async_context(http))
            yield await stack.enter_async_context(Client(target, message_handler=on_message, cache=None))


class Connection:
    """A connection in a task of its own, so that whoever uses it may be cancelled at any time. It begins at once, or
    when `after` has ended, and may take the server's `connect_timeout` for it.

    `on_change` is called when the server says that its tools have changed, or may have missed to say it.
    """

    def __init__(self, server: Server, on_change: Callable[[], None], *, after: asyncio.Task[None] | None) -> None:
        self._server = server
        self._on_change = on_change
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(asyncio.Future.exception)  # looked at, so that asyncio does not warn of it
        self.forgotten = False
        """Whether the server, such as one that was started again, knows nothing of the session any more."""
        self.doubtful = False
        """Whether that may be so: not all servers say it as the protocol has it."""
        self._end = asyncio.Event()
        self._scope = anyio.CancelScope()  # unlike a cancelled task, it lets the SDK end the process that it started
        self.task = asyncio.create_task(self._run(after))

    @property
    def ended(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._end.is_set()

    async def client(self) -> Client:
        """The client, once it is connected. Raises what stood in the way."""
        return await asyncio.shield(self._opened)

    def end(self) -> None:
        """Begins to end it; it has ended when its task has."""
        if self._end.is_set():
            return
        self._end.set()
        if self._opened.done():
            self._scope.deadline = anyio.current_time() + _CLOSING
        else:
            self._scope.cancel()

    async def _run(self, after: asyncio.Task[None] | None) -> None:
        failure: Exception = TimeoutError()
        try:
            if after is not None:
                await asyncio.wait([after])
            with self._scope:
                self._scope.deadline = anyio.current_time() + self._server.connect_timeout
                async with self._server.client(self._on_message, self._on_response) as client:
                    self._scope.deadline = math.inf
                    self._opened.set_result(client)
                    await self._listen(client)
        except Exception as error:
            failure = error
            logger.info("A session with an MCP server ended (%s).", type(error).__name__)
        finally:
            self._end.set()
            if not self._opened.done():
                self._opened.set_exception(failure)

    async def _listen(self, client: Client) -> None:
        """Until the end."""
        async with anyio.create_task_group() as listening:
            listening.start_soon(self._subscribe, client)
            await self._end.wait()
            listening.cancel_scope.cancel()

    async def _subscribe(self, client: Client) -> None:
        """Newer servers tell what changed to who asks for it, older ones tell it anyway."""
        missed = False
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    if missed:
                        self._on_change()
                    async for _ in changes:
                        self._on_change()
            except ListenNotSupportedError:
                return
            except MCPError as error:
                if error.code != CONNECTION_CLOSED:
                    return
            except SubscriptionLost:
                pass
            missed = True
            await asyncio.sleep(_PAUSE)

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _on_response(self, response: httpx2.Response) -> None:
        if "mcp-session-id" in response.request.headers:
            self.forgotten |= response.status_code == codes.NOT_FOUND
            self.doubtful |= response.status_code == codes.BAD_REQUEST


async def _with_call_headers(request: httpx2.Request) -> None:
    request.headers.update(CALL_HEADERS.get({}))
