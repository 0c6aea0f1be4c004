"""Sources of tools: what tools there are is known only once they run, and may change while they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from moorline_agents.tools import Tool


@runtime_checkable
class ToolSource(Protocol):
    """Where an agent finds tools, such as an MCP server; one of the `tools` of an `Agent`."""

    async def tools(self) -> Sequence[Tool]:
        """The tools that there are now. It never raises, and soon gives those it knew last if it cannot find out."""

    def missing(self, name: str) -> Tool | None:
        """For the name of a tool that it does not have now, but may have had: a tool whose calls are refused with the
        reason. None for a name that is none of its own."""

    async def aclose(self) -> None:
        """Ends what was begun on the running event loop. The source may be used again afterwards."""
