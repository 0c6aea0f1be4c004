"""A device whose rows are damaged fails with an error that says so, at once; no other device notices, and once the rows
are repaired the device goes on."""

import asyncio
import time

import ormsgpack
import pytest

from moorline.errors import MoorlineError, StateDamaged
from moorline_checkpoint.saver import DeviceCheckpointer

from .claims import Connection, expire_lease, message, statuses
from .conftest import Workers
from .runtimes import runtime, say

TABLES = ("states", "messages", "turns", "checkpoints", "values", "writes")

LIST = ormsgpack.packb(["no", "checkpoint"])
DEEP = b"\x91" * 200_000 + b"\xc0"

AT_BEGIN = {
    "a checkpoint is its own parent": "UPDATE conversation_checkpoints SET parent_checkpoint_id = checkpoint_id",
    "checkpoints are each other's ancestors": "UPDATE conversation_checkpoints SET parent_checkpoint_id = coalesce("
    "parent_checkpoint_id, (SELECT max(m.checkpoint_id) FROM conversation_checkpoints m WHERE m.device_id = 'bad'))",
    "the heads are a list": "UPDATE conversation_states SET heads = '[1]'",
    "the heads are numbers": """UPDATE conversation_states SET heads = '{"": 5}'""",
    "the versions are a list": "UPDATE conversation_checkpoints SET versions = '[1]'",
}
IN_THE_RUN = {
    "the metadata is a number": "UPDATE conversation_checkpoints SET metadata = '7'",
    "a checkpoint of a foreign type": "UPDATE conversation_checkpoints SET type = 'pickle'",
    "a checkpoint is not a checkpoint": f"UPDATE conversation_checkpoints SET checkpoint = '\\x{LIST.hex()}'",  # noqa: S608
    "a checkpoint is cut off": "UPDATE conversation_checkpoints SET checkpoint = substr(checkpoint, 1, 9)",
    "a checkpoint is nested too deeply": f"UPDATE conversation_checkpoints SET checkpoint = '\\x{DEEP.hex()}'",  # noqa: S608
    "a write of a foreign type": "UPDATE conversation_writes SET type = 'pickle'",
    "a write is noise": "UPDATE conversation_writes SET blob = '\\xc1c1c1'",
    "a write is nothing": "UPDATE conversation_writes SET blob = NULL",
}


async def poisoned(connection: Connection, statement: str) -> None:
    """Keeps the rows of `bad` as they are, then damages them."""
    for table in TABLES:
        await connection.execute(
            f"CREATE TABLE kept_{table} AS SELECT * FROM conversation_{table} WHERE device_id = 'bad'"  # noqa: S608
        )
    assert await connection.execute(f"{statement} WHERE device_id = 'bad'") != "UPDATE 0"


async def repaired(connection: Connection) -> None:
    for table in TABLES[3:]:
        await connection.execute(f"DELETE FROM conversation_{table} WHERE device_id = 'bad'")  # noqa: S608
        await connection.execute(f"INSERT INTO conversation_{table} SELECT * FROM kept_{table}")  # noqa: S608
    await connection.execute(
        "UPDATE conversation_states s SET heads = k.heads, claim_id = NULL, open_messages = NULL"
        " FROM kept_states k WHERE s.device_id = 'bad'"
    )


@pytest.mark.parametrize("what", [*AT_BEGIN, *IN_THE_RUN])
async def test_damage_fails_its_own_device_and_no_other(dsn: str, connection: Connection, what: str) -> None:
    others = [f"d{number}" for number in range(10)]
    async with runtime(dsn) as before:
        for text in ("one", "two"):
            for device in ["bad", *others]:
                await say(before, text, text, device=device)
    await poisoned(connection, (AT_BEGIN | IN_THE_RUN)[what])

    async def timed(device: str) -> float:
        began = time.perf_counter()
        outcome = await asyncio.gather(say(moorline, "secret words", "three", device=device), return_exceptions=True)
        outcomes[device] = outcome[0]
        return time.perf_counter() - began

    outcomes: dict[str, object] = {}
    async with runtime(dsn) as moorline:
        assert max(await asyncio.gather(*map(timed, ["d0", "bad", *others[1:]]))) < 1
        failure = outcomes.pop("bad")
        assert isinstance(failure, StateDamaged)
        assert not failure.retryable
        assert "secret" not in str(failure)
        assert set(outcomes.values()) == {"3: secret words"}
        assert list(await statuses(connection, "bad")) == ["one", "two"]
        await repaired(connection)
        assert await say(moorline, "more", "three", device="bad") == "3: more"


async def test_an_unfinished_message_of_a_wrong_shape_fails_and_holds_up_no_other(
    dsn: str, connection: Connection, worker: Workers
) -> None:
    await worker().begin(message("m1"), claim_id=(await connection.fetchval("SELECT gen_random_uuid()")))
    await expire_lease(connection)
    await connection.execute("UPDATE conversation_messages SET values = '7'")
    async with runtime(dsn) as moorline:
        assert await say(moorline, "hello", "m2") == "1: hello"
        with pytest.raises(StateDamaged):
            await say(moorline, "hello", "m1")
        assert await say(moorline, "next", "m3") == "2: next"


async def test_a_stored_reply_of_a_wrong_shape_fails_its_own_message(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", "m1")
        await connection.execute("UPDATE conversation_turns SET usage = '7'")
        with pytest.raises(StateDamaged):
            await say(moorline, "hello", "m1")
        with pytest.raises(StateDamaged):
            await moorline.transcript("d1")
        assert await say(moorline, "hello", "m2") == "2: hello"


async def test_a_plain_saver_names_damage_too(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        for text in ("one", "two"):
            await say(moorline, text, text, device="bad")
    await connection.execute(AT_BEGIN["a checkpoint is its own parent"])
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        config = {"configurable": {"thread_id": "bad"}}
        with pytest.raises(MoorlineError) as caught:
            await saver.aget_delta_channel_history(config=config, channels=["desk.history"])  # type: ignore[arg-type]
    assert isinstance(caught.value, StateDamaged)
    assert "its own ancestor" in str(caught.value)
