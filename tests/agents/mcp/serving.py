"""Tools of MCP servers, as tests open and call them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moorline_agents.mcp_tools import MCPTools
from moorline_agents.tools import Tool, ToolContext, ToolRefused
from tests.agents.mcp import server as bad

PROGRAM = Path(bad.__file__)
SOURCE = PROGRAM.read_text()


def no_transaction() -> Any:
    raise AssertionError


CONTEXT = ToolContext(device_id="d1", now=datetime.now(UTC), values={"user": "ana"}, transaction=no_transaction)


@asynccontextmanager
async def closing(tools: MCPTools) -> AsyncIterator[MCPTools]:
    try:
        yield tools
    finally:
        await tools.aclose()


def opened(notes: Path | None = None, **settings: Any) -> AbstractAsyncContextManager[MCPTools]:
    env = {} if notes is None else {"NOTES": str(notes)}
    return closing(MCPTools(name="bad", command=[sys.executable, str(PROGRAM)], env=env, **settings))


async def named(tools: MCPTools) -> dict[str, Tool]:
    return {tool.name: tool for tool in await tools.tools()}


async def refused(tool: Tool, arguments: str = "{}") -> ToolRefused:
    with pytest.raises(ToolRefused) as raised:
        await tool.call(arguments, CONTEXT)
    return raised.value
