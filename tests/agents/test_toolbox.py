"""The tools of an agent at a moment: its own, and those that a source has."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from moorline_agents.control import NAMES
from moorline_agents.tool_source import ToolSource
from moorline_agents.toolbox import Toolbox
from moorline_agents.tools import Tool, ToolContext, ToolRefused, tool


class Nothing(BaseModel):
    pass


def named(name: str) -> Tool:
    @tool(name=name)
    async def made(_: Nothing, context: ToolContext) -> str:
        """Does it."""
        return name

    return made


class Source:
    def __init__(self, *names: str) -> None:
        self.has = [named(name) for name in names]

    async def tools(self) -> Sequence[Tool]:
        return self.has

    def missing(self, name: str) -> Tool | None:
        return named(name) if name == "was_there" else None

    async def aclose(self) -> None:
        pass


async def offered(*sources: ToolSource) -> list[str]:
    toolbox = Toolbox([named("own"), *sources], control=[], timeout=None)
    return [schema["function"]["name"] for schema in await toolbox.schemas()]


async def test_a_source_takes_no_name_of_an_own_tool_of_another_source_or_of_the_kit() -> None:
    assert await offered(Source("a_b", "own", *NAMES), Source("a_b", "c")) == ["own", "a_b", "c"]


async def test_a_tool_that_a_source_does_not_have_now_is_its_to_refuse_and_any_other_is_unknown() -> None:
    toolbox = Toolbox([named("own"), Source("a_b")], control=[], timeout=None)
    assert (await toolbox.find("was_there")).name == "was_there"
    with pytest.raises(ToolRefused, match=r"There is no tool nobody\. The tools are: own, a_b\."):
        await toolbox.find("nobody")
