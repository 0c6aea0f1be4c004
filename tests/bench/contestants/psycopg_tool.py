"""A tool of LangChain that writes with psycopg, as its documentation does: a connection of a pool for each call, whose
transaction is committed at the end of the block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langchain.tools import ToolRuntime, tool
from langchain_core.tools import BaseTool
from psycopg_pool import AsyncConnectionPool

from tests.bench.contestants import CONNECTIONS
from tests.bench.contestants.notes import TABLE, TOOL


@asynccontextmanager
async def note_tool(dsn: str) -> AsyncIterator[BaseTool]:
    """With its table made and all connections open."""
    async with AsyncConnectionPool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        async def leave_note(note: str, runtime: ToolRuntime) -> dict[str, str]:
            """Leave a note for the people in the shop."""
            device = runtime.config["configurable"]["thread_id"]
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO notes (device_id, note) VALUES (%s, %s)", (device, note))
            return {"status": "left"}

        yield tool(TOOL)(leave_note)
