"""The tools that an agent has at a moment: its own, those that its sources have now, and the kit's control tools."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from moorline_agents.control import NAMES
from moorline_agents.tool_source import ToolSource
from moorline_agents.tools import Tool, ToolRefused

logger = logging.getLogger("moorline.agents")

Schema = Mapping[str, Any]


class Toolbox:
    """The tools of an agent. `control` are the entries of the control tools; a call may take `timeout` seconds if its
    tool does not say itself how many."""

    def __init__(self, tools: Sequence[Tool | ToolSource], *, control: Sequence[Schema], timeout: float | None) -> None:
        self._own = {tool.name: tool.within(timeout) for tool in tools if isinstance(tool, Tool)}
        self._sources = [source for source in tools if isinstance(source, ToolSource)]
        self._control = control
        self._timeout = timeout
        self._taken = {*self._own, *NAMES}
        self._given: Sequence[Sequence[Tool]] = ()
        """What the sources gave last."""
        self._found: dict[str, Tool] = {}
        self._schemas = self._listed()

    async def schemas(self) -> Sequence[Schema]:
        """The `tools` of a request: in the same order each time, as long as the sources have the same."""
        if self._sources:
            await self._look()
        return self._schemas

    async def find(self, name: str) -> Tool:
        """The tool of this name; if its source does not have it now, one that says so. Raises `ToolRefused` if there is
        none."""
        if self._sources and self.get(name) is None:  # otherwise the call itself finds out
            await self._look()
        tool = self.get(name) or self._missing(name)
        if tool is None:
            known = ", ".join((*self._own, *self._found)) or "none"
            raise ToolRefused(f"There is no tool {name}. The tools are: {known}.", code="unknown_tool")
        return tool

    def get(self, name: str) -> Tool | None:
        """The tool of this name, as far as is known."""
        return self._own.get(name) or self._found.get(name)

    def _missing(self, name: str) -> Tool | None:
        missing = (source.missing(name) for source in self._sources)
        return next((tool for tool in missing if tool is not None), None)

    async def _look(self) -> None:
        given = await asyncio.gather(*(source.tools() for source in self._sources))
        if given == self._given:
            return
        found: dict[str, Tool] = {}
        for tools in given:
            for tool in tools:
                if tool.name in self._taken or tool.name in found:
                    logger.warning("The tool name %s is taken; the one of a source is not offered.", tool.name)
                else:
                    found[tool.name] = tool.within(self._timeout)
        self._given, self._found = given, found
        self._schemas = self._listed()

    def _listed(self) -> list[Schema]:
        return [*(tool.schema for tool in (*self._own.values(), *self._found.values())), *self._control]
