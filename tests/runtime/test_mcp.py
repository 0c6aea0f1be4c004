"""An agent with the tools of an MCP server: a server that dies harms no conversation, and ends with the runtime."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from moorline import Agent, MCPTools, Moorline, Settings, ToolFinished
from moorline.testing import Call, ModelReply, Script, rule_client
from tests.agents.mcp import server


def calling(name: str) -> ModelReply:
    return ModelReply(calls=(Call(name=name, arguments={"n": 1}),))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_server_that_dies_in_mid_call_leaves_the_conversation_intact(
    settings: Settings, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, server.__file__]
    tools = MCPTools(name="bad", command=command, env={"PIDS": str(pids)}, only=["look", "die"])
    script = Script(calling("bad_die"), "It was lost.", calling("bad_look"), "There it is.", "Bye.")
    agent = Agent(name="a", description="a", instructions="a", tools=[tools])
    async with Moorline(settings, agents=[agent], client=rule_client(script)) as moorline:
        events = [event async for event in moorline.stream("hello", {"device_id": "d1"})]
        (finished,) = (event for event in events if isinstance(event, ToolFinished))
        assert finished.refused is not None
        assert finished.refused["code"] == "mcp_lost"
        assert await moorline.run("again", {"device_id": "d1"}) == "There it is."
        assert await moorline.run("bye", {"device_id": "d1"}) == "Bye."
    offered = [list(request.functions) for request in script.requests]
    assert offered == [["bad_die", "bad_look", "end_session"]] * 5
    results = [
        json.loads(message["content"] or "") for message in script.requests[-1].messages if message["role"] == "tool"
    ]
    assert [result if isinstance(result, str) else result["code"] for result in results] == ["mcp_lost", '{"n": 1}']
    first, second = (int(pid) for pid in pids.read_text().split())
    deadline = time.monotonic() + 5
    while is_running(second) and time.monotonic() < deadline:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs
    assert not is_running(first)
    assert not is_running(second)


async def test_a_server_that_is_not_there_leaves_an_agent_its_own_tools(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    gone = MCPTools(name="gone", command=["/no/such/program"])
    script = Script(calling("gone_look"), "I cannot.", "Hello.")
    agent = Agent(name="a", description="a", instructions="a", tools=[gone])
    async with Moorline(settings, agents=[agent], client=rule_client(script)) as moorline:
        assert await moorline.run("hello", {"device_id": "d1"}) == "I cannot."
        assert await moorline.run("hello", {"device_id": "d1"}) == "Hello."
    assert list(script.requests[0].functions) == ["end_session"]
    assert caplog.text.count("cannot be asked for its tools") == 1
