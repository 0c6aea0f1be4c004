"""People with several devices: on the command line, and with the agents that ship."""

from typing import TYPE_CHECKING

import asyncpg
from typer.testing import CliRunner

from moorline import Moorline, Settings
from moorline.commands import app as commands
from moorline_agents.scheduling.demo import seed_demo

if TYPE_CHECKING:
    from typer.testing import Result


def run(dsn: str, *arguments: str, said: str | None = None) -> "Result":
    return CliRunner().invoke(commands, list(arguments), env={"DATABASE_URL": dsn}, input=said)


def test_devices_are_linked_listed_unlinked_and_erased(dsn: str) -> None:
    run(dsn, "chat", "--device", "laptop", said="hello\n")
    code = run(dsn, "link-code", "laptop").output.strip()
    joined = run(dsn, "link", "phone", code)
    assert joined.exit_code == 0
    assert [line.split("\t")[0] for line in joined.output.splitlines()] == ["laptop", "phone"]
    assert "* Another device has joined" in run(dsn, "chat", "--device", "laptop", said="and now\n").output
    assert run(dsn, "link", "tablet", code).exit_code == 1
    assert run(dsn, "turns", "phone").output == run(dsn, "turns", "laptop").output
    assert run(dsn, "unlink", "phone").exit_code == 0
    assert run(dsn, "unlink", "phone").exit_code == 1
    assert run(dsn, "devices", "laptop").output == "laptop\t\n"
    run(dsn, "link", "phone", run(dsn, "link-code", "laptop").output.strip())
    assert run(dsn, "erase", "phone", "--person").exit_code == 0
    for device in ("laptop", "phone"):
        assert run(dsn, "devices", device).exit_code == 1
        assert run(dsn, "erase", device).exit_code == 1


async def test_a_linked_device_sees_moves_and_cancels_the_same_appointments(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await seed_demo(connection)
    async with Moorline(Settings(database_url=dsn)) as moorline:

        async def say(device: str, text: str) -> str:
            return str(await moorline.run(text, {"device_id": device}))

        await say("laptop", "When can I get a haircut?")
        await moorline.link("phone", await moorline.link_code("laptop"))
        assert (await say("phone", "The first one, please")).startswith("Shall I book ")
        assert "booked" in (await say("laptop", "yes")).lower()
        assert await connection.fetchval("SELECT active_agent FROM conversation_states WHERE device_id = 'laptop'")
        assert (await moorline.session("phone")) is not None
        booked = await connection.fetchval("SELECT lower(during) FROM appointments")
        await say("laptop", "Please move my appointment to next Wednesday")
        await say("laptop", "The first one, please")
        await say("phone", "yes")
        moved = await connection.fetchval("SELECT lower(during) FROM appointments WHERE status = 'booked'")
        assert moved != booked
        await say("phone", "Please cancel my appointment")
        assert "cancelled" in (await say("laptop", "yes")).lower()
        rows = await connection.fetch("SELECT DISTINCT device_id, status FROM appointments")
        assert [tuple(row) for row in rows] == [("laptop", "cancelled")]
        assert await moorline.get_session_lock("phone") == await moorline.get_session_lock("laptop")
    await connection.close()
