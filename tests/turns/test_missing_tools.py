"""A turn that has to run again where the server of its tools cannot be reached."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from moorline import Agent, MCPTools
from moorline.errors import AgentError
from moorline.testing import Script
from moorline_agents.transport import Call, ModelReply, ModelRequest
from tests.agents.mcp import server

from .claims import Connection
from .runtimes import after_tools, runtime, say


def desk(tools: MCPTools) -> Agent:
    return Agent(name="desk", description="does it", instructions="desk", tools=[tools])


def reachable(notes: Path, *, trust_hints: bool = False) -> Agent:
    command, env = [sys.executable, server.__file__], {"NOTES": str(notes)}
    return desk(MCPTools(name="bad", command=command, env=env, trust_hints=trust_hints))


def gone(*, trust_hints: bool = False) -> Agent:
    return desk(MCPTools(name="bad", command=["/no/such/program"], trust_hints=trust_hints))


def asking(request: ModelRequest) -> ModelReply:
    """Calls the tool, and says what it gave."""
    if not after_tools(request):
        return ModelReply(calls=(Call(name="bad_whoami", arguments={}),))
    result = json.loads(request.messages[-1]["content"] or "")
    return ModelReply(text=result if isinstance(result, str) else result["code"])


def failing(request: ModelRequest) -> ModelReply:
    """Fails when the tool has given something."""
    if after_tools(request):
        raise LookupError
    return asking(request)


async def fails(dsn: str, agent: Agent) -> None:
    async with runtime(dsn, failing, agent=agent) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "who am I?", "m1")


@pytest.mark.parametrize("trust_hints", [False, True])
async def test_what_a_call_gave_before_it_gives_again(dsn: str, tmp_path: Path, trust_hints: bool) -> None:
    notes = tmp_path / "notes"
    await fails(dsn, reachable(notes, trust_hints=trust_hints))
    script = Script(rules=asking)
    async with runtime(dsn, script, agent=gone(trust_hints=trust_hints)) as moorline:
        assert await say(moorline, "who am I?", "m1") == "{}"
        assert await say(moorline, "and now?", "m2") == "mcp_unreachable"
    assert notes.read_text().split() == ["listed", "whoami"]


async def test_so_it_does_where_the_tool_is_not_accepted(dsn: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await fails(dsn, reachable(notes))
    tools = MCPTools(name="bad", command=[sys.executable, server.__file__], accepted=tmp_path / "nothing.json")
    async with runtime(dsn, asking, agent=desk(tools)) as moorline:
        assert await say(moorline, "who am I?", "m1") == "{}"
        assert await say(moorline, "and now?", "m2") == "mcp_changed"
    assert notes.read_text().split() == ["listed", "whoami"]


async def test_a_call_of_unknown_outcome_stays_so(dsn: str, connection: Connection, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    await fails(dsn, reachable(notes))
    await connection.execute("UPDATE conversation_effects SET result = NULL WHERE kind = 'outside'")
    async with runtime(dsn, asking, agent=gone()) as moorline:
        assert await say(moorline, "who am I?", "m1") == "outcome_unknown"
    assert notes.read_text().split() == ["listed", "whoami"]


async def test_a_call_that_could_not_be_made_is_not_made_by_a_rerun(dsn: str, tmp_path: Path) -> None:
    """The model has been told that nothing was done."""
    notes = tmp_path / "notes"
    await fails(dsn, gone())
    async with runtime(dsn, asking, agent=reachable(notes)) as moorline:
        assert await say(moorline, "who am I?", "m1") == "mcp_unreachable"
        assert await say(moorline, "and now?", "m2") == "{}"
    assert notes.read_text().split() == ["listed", "whoami"]
