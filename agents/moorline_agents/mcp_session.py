"""The session with an MCP server: opened when it is first needed, shared by all turns of an event loop, and opened
again at the next call after the server was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from mcp import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    RequestParamsMeta,
)
from mcp_types import Tool as ServerTool
from pydantic import TypeAdapter, ValidationError

from moorline_agents.mcp_connection import CALL_HEADERS, Connection, Server

MOST_LISTED = 1_024
"""Tools of a server that are listed."""

Given = CallToolResult | InputRequiredResult
"""What a call gives."""

_GIVEN: TypeAdapter[Given] = TypeAdapter(Given)


class SessionLost(Exception):
    """The server cannot be reached, was lost, or gave an answer that cannot be read. `sent` says whether the call may
    have reached it; `forgotten`, that the server has only forgotten the session, and a new one may be tried."""

    def __init__(self, *, sent: bool, forgotten: bool = False) -> None:
        super().__init__()
        self.sent = sent
        self.forgotten = forgotten


class Session:
    """One connection at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._current: Connection | None = None
        self._listed: Connection | None = None
        """The connection by which the tools were listed last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._told = False
        """Whether the server has said since that its tools have changed."""

    @property
    def changed(self) -> bool:
        """Whether the tools may be others than those that were listed last."""
        return self._told or self._listed is None or self._listed.ended

    async def list_tools(self) -> Sequence[ServerTool]:
        """The server's tools, in its order. Raises `SessionLost` and `MCPError`."""
        self._listed = None
        connection = self._connection()
        listed: list[ServerTool] = []
        cursor: str | None = None
        try:
            client = await connection.client()
        except Exception as error:
            raise SessionLost(sent=False) from error
        self._told = False
        async with _watched(connection), asyncio.timeout(self._server.connect_timeout):
            while len(listed) < MOST_LISTED:
                page = await client.list_tools(cursor=cursor)
                listed += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
        self._listed = connection
        return listed[:MOST_LISTED]

    async def call(
        self, name: str, arguments: Mapping[str, Any], meta: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Given:
        """What the tool gave. Raises `SessionLost`, also if the tools are not known to be those that were listed last,
        and `MCPError` if the server refuses the call."""
        connection = self._listed
        if connection is None or connection.ended:
            raise SessionLost(sent=False)
        client = await connection.client()
        params = CallToolRequestParams(
            name=name, arguments=dict(arguments), _meta=cast("RequestParamsMeta", dict(meta)) or None
        )
        token = CALL_HEADERS.set(headers)
        try:
            async with _watched(connection):
                # Not `call_tool`, which has the result match a schema, and its patterns, that the server made up.
                return await client.session.send_request(CallToolRequest(params=params), _GIVEN)
        finally:
            CALL_HEADERS.reset(token)

    async def close(self) -> None:
        """Ends it for good, also what is only being opened or closed."""
        self._closed = True
        if self._current is not None:
            self._current.end()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _connection(self) -> Connection:
        if self._closed:
            raise SessionLost(sent=False)
        earlier = self._current
        if earlier is not None and not earlier.ended:
            return earlier
        self._current = Connection(self._server, self._on_told, after=None if earlier is None else earlier.task)
        self._tasks.add(self._current.task)
        self._current.task.add_done_callback(self._tasks.discard)
        return self._current

    def _on_told(self) -> None:
        self._told = True


@asynccontextmanager
async def _watched(connection: Connection) -> AsyncIterator[None]:
    """What is asked in the block fails with `SessionLost` if the connection is lost, which then ends."""
    try:
        yield
    except ValidationError as error:
        raise SessionLost(sent=True) from error
    except MCPError as error:
        if connection.forgotten or connection.doubtful or error.code == CONNECTION_CLOSED:
            connection.end()
        if connection.forgotten:
            raise SessionLost(sent=False, forgotten=True) from error
        if error.code != CONNECTION_CLOSED:
            raise
        raise SessionLost(sent=True) from error
    except Exception as error:
        connection.end()
        raise SessionLost(sent=True) from error
