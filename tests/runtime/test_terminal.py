"""What people, models, devices and adopted rows say reaches a terminal and a log only as plain text."""

import asyncio
import re

import asyncpg
import pytest
from rich.console import Console

from moorline import Moorline, Settings
from moorline.commands import _show_table
from moorline_agents.transport import Call as ModelCall
from moorline_agents.transport import ModelReply, ModelRequest, rule_client
from moorline_checkpoint.saver import DeviceCheckpointer

from .test_cli import Call, moorline, no_settings  # noqa: F401 - fixtures

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e\nline\ttab\u2028"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")


def hostile(request: ModelRequest) -> ModelReply:
    if "route" in request.functions:
        return ModelReply(calls=(ModelCall(name="route", arguments={"agent": "scheduling"}),))
    if "die" in (request.messages[-1]["content"] or ""):
        raise LookupError
    return ModelReply(text=f"reply {HOSTILE}")


@pytest.fixture
async def told(dsn: str) -> str:
    """A database in which every text, ID and name that can be is hostile."""
    async with Moorline(Settings(database_url=dsn), client=rule_client(hostile)) as opened:
        await opened.run(f"text {HOSTILE}", {"device_id": "d1"})
        await opened.run("hello", {"device_id": "[/x][red]d2[/red]"})
        for _ in range(3):
            await asyncio.gather(
                opened.run("die", {"device_id": "d3", "message_id": f"m {HOSTILE}"}), return_exceptions=True
            )
    return dsn


def test_a_turn_is_one_line(told: str, moorline: Call) -> None:  # noqa: F811 - the fixture
    for arguments in (("turns", "d1"), ("turns", "--dead"), ("sessions",)):
        done = moorline(*arguments, DATABASE_URL=told)
        assert done.status == 0
        assert not CONTROLS.search(done.out)
        assert len(done.out.splitlines()) == (2 if arguments == ("sessions",) else 1)
    assert moorline("turns", "d1", DATABASE_URL=told).out.count("\t") == 3


def test_a_table_shows_brackets_as_they_are(told: str) -> None:
    async def found() -> list[object]:
        async with DeviceCheckpointer.from_conn_string(told) as saver:
            return [session async for session in saver.sessions()]

    console = Console(record=True, width=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rich.console.Console", lambda: console)
        _show_table(asyncio.run(found()))  # type: ignore[arg-type]  # a list of sessions
    assert "[/x][red]d2[/red]" in console.export_text()


def test_a_pipe_and_a_log_stay_plain_whatever_an_adopted_row_names(
    told: str,
    moorline: Call,  # noqa: F811 - the fixture
) -> None:
    async def adopt() -> None:
        connection = await asyncpg.connect(told)
        await connection.execute(
            "UPDATE conversation_states SET active_agent = $1 WHERE device_id = 'd1'", f"x{HOSTILE}ERROR: forged"
        )
        await connection.close()

    asyncio.run(adopt())
    done = moorline("sessions", DATABASE_URL=told)
    assert not CONTROLS.search(done.out)
    done = moorline("chat", "--device", "d1", said="hello\n", DATABASE_URL=told, MOORLINE_LOG_LEVEL="DEBUG")
    assert "forged" in done.err
    assert not CONTROLS.search(done.out + done.err)
    assert all(line.startswith(("DEBUG ", "INFO ", "WARNING ")) for line in done.err.splitlines())


def test_an_error_is_one_plain_line(told: str, moorline: Call) -> None:  # noqa: F811 - the fixture
    done = moorline("recover", "--device", "d1", "--message", f"nope {HOSTILE}", DATABASE_URL=told)
    assert done.status == 1
    assert not CONTROLS.search(done.err)
