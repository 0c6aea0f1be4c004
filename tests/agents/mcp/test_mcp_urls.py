"""MCP servers at a URL: who asks is said to them in headers too, and they may forget sessions."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing as closing_socket
from contextlib import suppress
from dataclasses import replace
from socket import socket
from typing import Any

import pytest

from moorline_agents.mcp_tools import MCPTools
from moorline_agents.tools import Tool, ToolRefused
from tests.agents.mcp.everything import everything
from tests.agents.mcp.far import far_server
from tests.agents.mcp.serving import CONTEXT, closing, named, refused


async def test_headers_go_to_a_server_with_a_url_and_its_tools_work() -> None:
    async with far_server() as far:
        tools = MCPTools(name="far", url=far.url, headers={"authorization": "Bearer s3cret"})
        found = await named(tools)
        assert await found["far_look"].call('{"a": 1}', CONTEXT) == '{"a": 1}'
        await tools.aclose()
    assert far.requests
    assert all("authorization: bearer s3cret" in head for head, _ in far.requests)


async def test_who_asks_is_said_to_a_server_with_a_url_in_headers_of_the_call_or_in_meta() -> None:
    async with far_server() as far:
        tools = MCPTools(
            name="far",
            url=far.url,
            identity=lambda context: {"example.com/device": context.device_id},
            call_headers=lambda context: {"x-user": context.values["user"]},
        )
        async with closing(tools):
            found = await named(tools)
            users = [f"user{n}" for n in range(8)]
            contexts = [replace(CONTEXT, device_id=f"d-{user}", values={"user": user}) for user in users]
            told = await asyncio.gather(*(found["far_whoami"].call("{}", context) for context in contexts))
            with pytest.raises(ValueError, match="printable ASCII"):
                await found["far_look"].call("{}", replace(CONTEXT, values={"user": "ana\r\nx-admin: yes"}))
    assert [json.loads(meta)["example.com/device"] for meta in told] == [f"d-{user}" for user in users]
    calls = [(head, body) for head, body in far.requests if body.get("method") == "tools/call"]
    said = {head.partition("x-user: ")[2].split("\r\n")[0]: body["params"]["_meta"] for head, body in calls}
    assert {user: meta["example.com/device"] for user, meta in said.items()} == {user: f"d-{user}" for user in users}
    assert all("x-user" not in head for head in (*far.heads("initialize"), *far.heads("tools/list")))


async def test_a_server_that_was_started_again_and_knows_no_session_is_called_in_a_new_one() -> None:
    async with far_server() as far, closing(MCPTools(name="far", url=far.url)) as tools:
        found = await named(tools)
        far.sessions.clear()
        assert await found["far_look"].call("{}", CONTEXT) == "{}"
        assert len(far.heads("initialize")) == 2


async def test_a_server_that_says_so_in_another_way_is_called_in_a_new_session_the_next_time() -> None:
    async with far_server() as far, closing(MCPTools(name="far", url=far.url)) as tools:
        found = await named(tools)
        far.sessions.clear()
        far.unknown = "400 Bad Request"
        assert (await refused(found["far_look"])).code == "mcp_lost"
        assert await found["far_look"].call("{}", CONTEXT) == "{}"


@pytest.mark.parametrize("status", [500, 504])
async def test_of_a_call_that_a_proxy_gave_up_the_outcome_is_unknown(status: int) -> None:
    async with far_server() as far, closing(MCPTools(name="far", url=far.url)) as tools:
        found = await named(tools)
        far.status = status
        assert (await refused(found["far_look"])).code == "mcp_lost"


async def test_the_reference_server_at_a_url_is_reached_again_after_it_was_started_again(
    pytestconfig: pytest.Config,
) -> None:
    *program, _ = everything(pytestconfig)
    with closing_socket(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with closing(MCPTools(name="every", url=f"http://127.0.0.1:{port}/mcp", connect_timeout=5)) as tools:
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                *program,
                "streamableHttp",
                env={**os.environ, "PORT": str(port)},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await listening(port)
                found = await named(tools)
                outcomes = [await outcome(found["every_get-sum"]) for _ in range(2)]
            finally:
                process.kill()
                await process.wait()
            assert outcomes[1] == "The sum of 1 and 2 is 3."


async def listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def outcome(tool: Tool) -> Any:
    try:
        return await tool.call('{"a": 1, "b": 2}', CONTEXT)
    except ToolRefused as refusal:
        return refusal.code
