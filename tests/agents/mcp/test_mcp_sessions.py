"""The session with an MCP server: nothing of it is left, however it ends, and an odd server harms only itself."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from moorline_agents.mcp_connection import Server
from moorline_agents.mcp_session import Session, SessionLost
from moorline_agents.mcp_tools import MCPTools
from tests.agents.mcp import server as bad
from tests.agents.mcp.serving import CONTEXT, named, opened, refused

SILENT = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "w") as pid:
    pid.write(f"{os.getpid()}\\n")
if "stubborn" in sys.argv:
    time.sleep(600)
sys.stdin.read()
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def started(pid: Path) -> int:
    async with asyncio.timeout(20):
        while not is_written(pid):  # noqa: ASYNC110 - a process cannot set an event
            await asyncio.sleep(0.02)
    return number_in(pid)


def is_written(pid: Path) -> bool:
    return pid.exists() and pid.read_text().endswith("\n")


def number_in(pid: Path) -> int:
    return int(pid.read_text())


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What the block began has ended with it, and asyncio complains of nothing."""
    complaints: list[dict[str, Any]] = []
    loop, before = asyncio.get_running_loop(), asyncio.all_tasks()
    loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
    try:
        yield
        gc.collect()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert complaints == []
    finally:
        loop.set_exception_handler(None)


async def given_up(session: Session) -> None:
    with pytest.raises(SessionLost):
        await session.list_tools()


async def cancelled(session: Session) -> None:
    opening = asyncio.create_task(session.list_tools())
    await asyncio.sleep(0.3)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening


async def closed_meanwhile(session: Session) -> None:
    opening = asyncio.create_task(session.list_tools())
    await asyncio.sleep(0.3)
    await session.close()
    with pytest.raises(SessionLost):
        await opening
    with pytest.raises(SessionLost):
        await session.list_tools()


@pytest.mark.parametrize("opening", [given_up, cancelled, closed_meanwhile])
async def test_of_a_session_that_was_never_opened_nothing_is_left(
    tmp_path: Path, opening: Callable[[Session], Awaitable[None]]
) -> None:
    pid = tmp_path / "pid"
    command = (sys.executable, "-c", SILENT, str(pid))

    async def opened_and_closed() -> None:
        session = Session(Server(command=command, connect_timeout=1))
        await opening(session)
        await session.close()

    async with nothing_left():
        await opened_and_closed()
        assert not is_running(await started(pid))


async def test_a_server_that_will_not_end_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    async with nothing_left():
        session = Session(Server(command=(sys.executable, "-c", SILENT, str(pid), "stubborn"), connect_timeout=60))
        opening = asyncio.create_task(session.list_tools())
        running = await started(pid)
        await session.close()
        assert not is_running(running)
        with pytest.raises(SessionLost):
            await opening


async def test_of_a_session_that_was_used_and_lost_nothing_is_left(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with nothing_left():
        tools = MCPTools(name="bad", command=[sys.executable, bad.__file__], env={"PIDS": str(pids)})
        found = await named(tools)
        hanging = asyncio.create_task(refused(found["bad_hang"]))
        await asyncio.sleep(0.1)
        assert (await refused(found["bad_die"])).code == (await hanging).code == "mcp_lost"
        assert await found["bad_look"].call("{}", CONTEXT) == "{}"
        hanging = asyncio.create_task(refused(found["bad_hang"]))
        await asyncio.sleep(0.1)
        await tools.aclose()
        assert (await hanging).code == "mcp_lost"
        assert [is_running(int(pid)) for pid in pids.read_text().split()] == [False, False]


async def test_a_turn_that_gives_up_waiting_leaves_the_opening_to_the_next_one(tmp_path: Path) -> None:
    """Otherwise a server that starts slower than a turn is patient would be started for ever."""
    pids = tmp_path / "pids"
    slow = f"import runpy, time; time.sleep(1); runpy.run_path({bad.__file__!r}, run_name='__main__')"
    tools = MCPTools(name="bad", command=[sys.executable, "-c", slow], env={"PIDS": str(pids)})
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await tools.tools()
    assert "bad_look" in await named(tools)
    await tools.aclose()
    assert len(pids.read_text().split()) == 1


async def test_a_server_that_always_says_that_it_has_changed_is_called_all_the_same() -> None:
    tools = MCPTools(name="bad", command=[sys.executable, bad.__file__], env={"RESTLESS": "1"})
    try:
        found = await named(tools)
        for _ in range(3):
            assert await found["bad_look"].call("{}", CONTEXT) == "{}"
    finally:
        await tools.aclose()


async def test_a_result_that_cannot_be_read_is_no_harm_to_other_calls() -> None:
    async with opened(timeout=2) as tools:
        found = await named(tools)
        hanging = asyncio.create_task(refused(found["bad_hang"]))
        await asyncio.sleep(0.1)
        refusal = await refused(found["bad_garble"])
        assert refusal.code == "mcp_lost"
        assert "not known" in str(refusal)
        assert (await hanging).code == "timed_out"


async def test_what_a_server_wants_its_result_matched_with_is_not_run_here() -> None:
    async with opened() as tools:
        found = await named(tools)
        began = time.monotonic()
        assert (await found["bad_costly"].call("{}", CONTEXT))["a"].endswith("!")
        assert time.monotonic() - began < 2
