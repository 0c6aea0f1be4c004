"""MCP servers: what agents have of them, what is told to them, and what happens when they are bad, changed or gone."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moorline_agents import mcp_tools
from moorline_agents.mcp_tools import MCPTools
from tests.agents.mcp import server as bad
from tests.agents.mcp.everything import everything
from tests.agents.mcp.serving import CONTEXT, PROGRAM, SOURCE, closing, named, opened, refused


async def test_names_are_prefixed_valid_and_unique_and_what_no_model_could_call_is_left_out() -> None:
    async with opened() as tools:
        found = await named(tools)
    assert {"bad_look", "bad_whoami"} < found.keys()
    assert not {"bad_broken", "bad_refer"} & found.keys()
    (odd,) = (name for name in found if name.startswith("bad_a_name"))
    assert len(odd) == 64
    assert found["bad_look"].schema["function"] == {
        "name": "bad_look",
        "description": "Looks.",
        "parameters": bad.NOTHING,
    }


async def test_tools_are_in_the_same_order_whatever_that_of_the_server_is() -> None:
    """Otherwise prompts would begin differently, and providers' caches not hold."""
    async with opened() as tools:
        names = [tool.name for tool in await tools.tools() if tool.name.isascii()]
    assert names == sorted(names)


async def test_of_a_server_with_many_tools_those_that_are_wanted_are_found(caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"command": [sys.executable, str(PROGRAM)], "env": {"MANY": "300"}}
    async with closing(MCPTools(name="bad", only=["many299"], **settings)) as tools:
        assert (await named(tools)).keys() == {"bad_many299"}
    async with closing(MCPTools(name="bad", **settings)) as tools:
        assert len(await tools.tools()) <= 128
    assert "the first 128 count" in caplog.text


async def test_a_server_is_listed_once_and_called_in_one_session(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with opened(notes) as tools:
        found = await named(tools)
        await asyncio.gather(*(found["bad_look"].call('{"n": 1}', CONTEXT) for _ in range(5)), named(tools))
    assert sorted(notes.read_text().split()) == ["listed", *["look"] * 5]


async def test_every_call_is_an_effect_unless_the_hints_are_trusted() -> None:
    async with opened() as tools, opened(trust_hints=True) as trusted:
        plain, trusting = await named(tools), await named(trusted)
    assert {tool.effect for tool in plain.values()} == {"outside"}
    assert not any(tool.idempotent for tool in plain.values())
    assert (trusting["bad_look"].effect, trusting["bad_look"].idempotent) == ("none", True)
    assert (trusting["bad_whoami"].effect, trusting["bad_whoami"].idempotent) == ("outside", False)


async def test_who_asks_is_said_by_the_runtime_in_meta_and_arguments_are_the_models() -> None:
    async with opened(identity=lambda context: {"example.com/user": context.values["user"]}) as tools:
        found = await named(tools)
        assert json.loads(await found["bad_whoami"].call("{}", CONTEXT))["example.com/user"] == "ana"
        assert await found["bad_look"].call('{"user": "eve"}', CONTEXT) == '{"user": "eve"}'


async def test_a_server_inherits_no_secret_and_gets_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "DATABASE_URL", "MOORLINE_TAG_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "s3cret")
    tools = MCPTools(name="bad", command=[sys.executable, str(PROGRAM)], env={"OWN": "1"})
    async with closing(tools):
        given = await (await named(tools))["bad_env"].call("{}", CONTEXT)
    assert {*given["names"]} - {"LC_CTYPE"} <= {"HOME", "LOGNAME", "OWN", "PATH", "SHELL", "TERM", "USER"}
    assert "OWN" in given["names"]


async def test_a_description_that_changed_disables_the_tool(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with opened(notes) as tools:
        before = await named(tools)
        await before["bad_change"].call("{}", CONTEXT)
        after = await named(tools)
        assert before.keys() - after.keys() == {"bad_look"}
        refusal = await refused(before["bad_look"])
    assert refusal.code == "mcp_changed"
    assert notes.read_text().split() == ["listed", "change", "listed"]


NEWER = """
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

server = MCPServer("newer")

def extra() -> str:
    "Is new."
    return "new"

@server.tool()
async def add(context: Context) -> str:
    "Adds a tool."
    server.add_tool(extra)
    await context.notify_tools_changed()
    return "added"

@server.tool()
async def ask(context: Context) -> str | InputRequiredResult:
    "Asks the person."
    form = {"type": "object", "properties": {}}
    question = ElicitRequest(params=ElicitRequestFormParams(message="Who?", requested_schema=form))
    return InputRequiredResult(input_requests={"who": question})

server.run()
"""


async def test_a_server_of_the_sdk_says_by_the_newer_protocol_what_changed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(NEWER)
    tools = MCPTools(name="new", command=[sys.executable, str(tmp_path / "server.py")])
    try:
        found = await named(tools)
        await asyncio.sleep(0.2)  # until it is listened to
        assert await found["new_add"].call("{}", CONTEXT) == {"result": "added"}
        await asyncio.sleep(0.3)  # until it has said so
        assert (await named(tools)).keys() == {"new_add", "new_ask", "new_extra"}
        refusal = await refused(found["new_ask"])
        assert (refusal.code, "was not run" in str(refusal)) == ("mcp_error", True)
    finally:
        await tools.aclose()


@pytest.mark.parametrize("paused", [False, True])
async def test_a_server_that_comes_back_as_another_one_is_not_called_before_it_is_accepted(
    tmp_path: Path, paused: bool
) -> None:
    """Neither at the first call, nor while it is not asked for its tools because it could not be reached."""
    notes, program = tmp_path / "notes", tmp_path / "server.py"
    program.write_text(SOURCE)
    tools = MCPTools(name="bad", command=[sys.executable, str(program)], env={"NOTES": str(notes)})
    try:
        found = await named(tools)
        assert (await refused(found["bad_die"])).code == "mcp_lost"
        if paused:
            program.write_text("")
            assert (await named(tools)).keys() == found.keys()
            assert (await refused(found["bad_look"])).code == "mcp_unreachable"
        program.write_text(SOURCE.replace('"Looks."', '"Looks, and sends all that you know away."'))
        assert (await refused(found["bad_look"])).code == "mcp_changed"
        assert await found["bad_whoami"].call("{}", CONTEXT) == "{}"
    finally:
        await tools.aclose()
    assert "look" not in notes.read_text().split()


async def test_a_server_that_dies_in_mid_call_is_a_refusal_and_reached_again_at_the_next_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened() as tools:
        found = await named(tools)
        for _ in range(3):
            began = time.monotonic()
            refusal = await refused(found["bad_die"])
            assert time.monotonic() - began < 5
            assert refusal.code == "mcp_lost"
            assert "not known" in str(refusal)
            assert await found["bad_look"].call("{}", CONTEXT) == "{}"
    assert caplog.text.count("A call of tool 'die' of MCP server bad was lost (MCPError)") == 3


async def test_a_server_that_never_answers_is_given_up_in_the_tools_time() -> None:
    async with opened(timeout=0.3) as tools:
        found = await named(tools)
        began = time.monotonic()
        assert (await refused(found["bad_hang"])).code == "timed_out"
        assert time.monotonic() - began < 3
        assert await found["bad_look"].call("{}", CONTEXT) == "{}"


async def test_a_turn_that_is_cancelled_leaves_the_session_to_the_others() -> None:
    async with opened() as tools:
        found = await named(tools)
        hanging = asyncio.create_task(found["bad_hang"].call("{}", CONTEXT))
        await asyncio.sleep(0.2)
        hanging.cancel()
        assert await found["bad_look"].call("{}", CONTEXT) == "{}"


async def test_results_are_bounded_and_failures_are_refusals() -> None:
    async with opened() as tools:
        found = await named(tools)
        assert len(json.dumps(await found["bad_huge"].call("{}", CONTEXT))) < 140_000
        refusal = await refused(found["bad_fail"])
        assert (refusal.code, str(refusal)) == ("mcp_error", "No room left.")


@pytest.mark.parametrize(
    "settings",
    [{"command": ["/no/such/program"]}, {"command": [sys.executable, "-c", ""]}, {"url": "http://127.0.0.1:9/mcp"}],
)
async def test_a_server_that_cannot_be_reached_has_no_tools_and_delays_only_once(settings: dict[str, Any]) -> None:
    tools = MCPTools(name="gone", connect_timeout=3, **settings)
    assert await tools.tools() == ()
    began = time.monotonic()
    assert await tools.tools() == ()
    assert time.monotonic() - began < 0.1
    await tools.aclose()


async def test_a_missing_tool_is_refused_with_the_reason() -> None:
    async with opened(only=["look"]) as tools:
        missing = tools.missing("bad_find")
        assert missing is not None
        assert (missing.effect, missing.idempotent) == ("outside", False)
        assert (await refused(missing)).code == "mcp_unreachable"
        await tools.tools()
        refusal = await refused(missing)
        assert refusal.code == "mcp_changed"
        assert str(refusal) == "There is no tool bad_find now. The tools of bad are: bad_look."
        assert tools.missing("other_find") is None


async def test_of_many_one_waits_for_a_server_that_could_not_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "_PAUSE", 0.0)
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    async with closing(MCPTools(name="silent", command=silent, connect_timeout=0.5)) as tools:
        assert await tools.tools() == ()
        waiting = asyncio.create_task(tools.tools())
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.2):
            assert [await tools.tools() for _ in range(5)] == [()] * 5
        assert not waiting.done()
        assert await waiting == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "a b", "command": ["x"]}, "cannot name"),
        ({"name": "a"}, "give a command"),
        ({"name": "a", "command": "x y"}, "give a command"),
        ({"name": "a", "command": ["x"], "url": "http://x"}, "give a command"),
        ({"name": "a", "command": ["x"], "headers": {"a": "b"}}, "headers belong"),
        ({"name": "a", "command": ["x"], "call_headers": lambda _: {}}, "headers belong"),
        ({"name": "a", "url": "http://x", "env": {"a": "b"}}, "headers belong"),
    ],
)
def test_what_could_never_work_is_refused_when_it_is_made(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MCPTools(**settings)


async def test_the_reference_server_starts_without_secrets_and_gives_all_kinds_of_content(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    tools = MCPTools(name="every", command=everything(pytestconfig))
    try:
        found = await named(tools)
        env = json.loads(await found["every_get-env"].call("{}", CONTEXT))
        assert env.keys() <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}
        assert await found["every_get-sum"].call('{"a": 1, "b": 2}', CONTEXT) == "The sum of 1 and 2 is 3."
        assert "Input validation error" in str(await refused(found["every_get-sum"], '{"a": 1}'))
        picture = await found["every_get-tiny-image"].call("{}", CONTEXT)
        assert "[image/png, 4,035 bytes, not shown]" in picture
        weather = await found["every_get-structured-content"].call('{"location": "Chicago"}', CONTEXT)
        assert weather["temperature"] == 36
        resource = await found["every_get-resource-reference"].call(
            '{"resourceType": "Text", "resourceId": 1}', CONTEXT
        )
        assert "[demo://resource/dynamic/text/1]" in resource
    finally:
        await tools.aclose()
