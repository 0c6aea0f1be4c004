"""What an operator can do about turns: list them, finish those that were left behind, erase a device."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import asyncpg
import pytest
from typer.testing import CliRunner

from moorline.commands import app
from moorline_checkpoint.database import Database
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.turns import Turns

Command = Callable[..., str]


@pytest.fixture
def command(dsn: str) -> Command:
    """Runs a command on the test's database and returns its standard output."""

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments), env={"DATABASE_URL": dsn})
        assert result.exit_code == status, result.output
        return result.stdout

    return run


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def die_in_a_turn(dsn: str) -> None:
    """Leaves a claimed turn behind with its lease expired, as a killed process does."""
    database = Database(dsn)
    message = IncomingMessage(device_id="d1", message_id="m1", text="hello", resume=None, values={}, on_busy="wait")
    await Turns(database, default_ttl=60).begin(message, claim_id=uuid4())
    await database.close()
    await execute(dsn, "UPDATE conversation_states SET lease_until = clock_timestamp()")


def test_recover_finishes_what_a_killed_process_left_and_tells_the_reply(dsn: str, command: Command) -> None:
    asyncio.run(die_in_a_turn(dsn))
    assert command("recover").startswith("d1\tHello!")
    assert command("recover") == ""
    assert command("turns", "d1").startswith("1\tconcierge\thello\tHello!")


def test_a_message_that_was_set_aside_is_shown_and_can_be_tried_again(dsn: str, command: Command) -> None:
    asyncio.run(die_in_a_turn(dsn))
    asyncio.run(execute(dsn, "UPDATE conversation_messages SET attempts = 3"))
    assert command("recover") == ""
    shown = command("turns", "--dead").split("\t")
    assert shown[:4] == ["d1", "m1", "3 attempts", "the process that ran it died each time"]
    assert command("recover", "--device", "d1", "--message", "m1").startswith("d1\tHello!")
    assert command("turns", "--dead") == ""


def test_erase_leaves_nothing_of_the_device(dsn: str, command: Command) -> None:
    asyncio.run(die_in_a_turn(dsn))
    command("recover")
    assert command("erase", "d1") == "Erased.\n"
    assert command("turns", "d1", status=1) == ""


@pytest.mark.parametrize("arguments", [["turns"], ["turns", "d1", "--dead"], ["recover", "--device", "d1"]])
def test_half_a_question_is_a_usage_error(command: Command, arguments: list[str]) -> None:
    command(*arguments, status=2)
