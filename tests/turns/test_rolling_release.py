"""While a release rolls out, this code runs on the next version of the schema, beside code that already uses it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from moorline_checkpoint.queue import Replayed, Waiting
from moorline_checkpoint.turns import Turns
from moorline_migrations import CORE, apply, check
from moorline_migrations.versions import read

from .claims import Connection, answer, begin, claim, expire_lease, ids, message, record
from .runtimes import World, execute, runtime, say

NEXT = Path(__file__).parent / "next_version"
"""What a next version may do to the schema: add columns and an index, replace a function, add a successor of one."""


class Newer:
    """Acts as a process of the next version, by calling the function that is new there."""

    def __init__(self, turns: Turns, connection: Connection) -> None:
        self._turns = turns
        self._connection = connection

    async def answer(self, message_id: str) -> None:
        turn = await claim(self._turns, message(message_id))
        assert await self._connection.fetchval("SELECT moorline_heartbeat_2('d1', $1, 15, 'newer')", turn.claim_id)
        await self._turns.commit(turn, record(turn, "newer"))


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection to a database of the next version."""
    connection = await asyncpg.connect(dsn)
    [version] = read(NEXT, component="moorline")
    await connection.execute(version.sql.replace("@schema", "public"))
    yield connection
    await connection.close()


async def test_the_next_version_is_applied_and_this_code_may_run_on_it(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    before = await connection.fetchval("SELECT max(version) FROM moorline_schema WHERE component = 'moorline'")
    [version] = read(NEXT, component="moorline")
    await connection.execute(version.sql.replace("@schema", "public"))
    await connection.execute(
        "INSERT INTO moorline_schema (component, version, name, oldest_code) VALUES ('moorline', $1, 'next', $1 - 1)",
        before + 1,
    )
    await check(connection, components=(CORE,))
    assert await apply(connection, components=(CORE,)) == []
    await connection.close()


async def test_turns_of_both_follow_each_other(turns: Turns, connection: Connection) -> None:
    newer = Newer(turns, connection)
    for number in range(1, 7):
        if number % 2:
            await newer.answer(f"m{number}")
        else:
            assert (await answer(turns, message(f"m{number}"))).turn_no == number
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1, 2, 3, 4, 5, 6]
    assert isinstance(await begin(turns, message("m1")), Replayed)


async def test_this_code_finishes_what_a_newer_process_left(turns: Turns, connection: Connection) -> None:
    await claim(turns, message("m1"))
    await connection.execute("UPDATE conversation_states SET region = 'north'")
    assert await begin(turns, message("m2")) == Waiting()
    await expire_lease(connection)
    recovered = await claim(turns, message("m2"))
    assert (ids(recovered), recovered.attempts) == (["m1"], 2)
    await turns.commit(recovered, record(recovered))
    assert ids(await answer(turns, message("m2"))) == ["m2"]
    assert await connection.fetchval("SELECT region FROM conversation_states") == "north"


async def test_a_turn_that_is_open_while_the_schema_changes_is_committed(dsn: str, turns: Turns) -> None:
    """By processes that prepared their statements before."""
    await answer(turns, message("m0"))
    turn = await claim(turns, message("m1"))
    [version] = read(NEXT, component="moorline")
    for statement in version.sql.replace("@schema", "public").split("\n\n"):
        await execute(dsn, statement)
    assert await turns.heartbeat(turn)
    await turns.commit(turn, record(turn))
    assert (await answer(turns, message("m2"))).turn_no == 3
    await turns.withdraw(message("m3"), claim_id=uuid4())


async def test_a_runtime_of_this_code_runs_on_the_next_version(dsn: str, connection: Connection) -> None:
    await connection.execute("CREATE TABLE bookings (device_id text, what text)")
    async with runtime(dsn, world=World()) as one, runtime(dsn, world=World()) as other:
        assert await say(one, "book table") == "1: table"
        replies = await asyncio.gather(say(one, "hello", device="d2"), say(other, "hello"))
        assert list(map(str, replies)) == ["1: hello", "2: hello"]
        await one.erase("d1")
        assert await say(other, "hello") == "1: hello"
