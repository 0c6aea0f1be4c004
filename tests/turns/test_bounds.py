"""What one device may have waiting, and what one turn may answer, is bounded; beyond that the caller is told so, and
nobody else notices."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from moorline import Moorline, Reply
from moorline.errors import SessionBusy, TurnTimeout
from moorline_checkpoint.database import Database
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.queue import Busy, Replayed, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import QUEUE_MAX, Turns

from .claims import Connection, answer, begin, claim, expire_waiter, ids, message, record, statuses
from .runtimes import Stall, runtime, say

FLOOD = 10_000
"""Messages."""

MERGED = 32
"""Messages that one turn answers at most."""

MERGED_BYTES = 32 * 1024
"""Bytes of their texts."""


@pytest.fixture
async def narrow(dsn: str) -> AsyncIterator[Turns]:
    """The turns of a worker for whom two messages of a device may wait."""
    database = Database(dsn)
    yield Turns(database, default_ttl=60, queue_max=2)
    await database.close()


def merged(message_id: str, text: str | None = None) -> IncomingMessage:
    """A message that may be merged."""
    return message(message_id, text=text, on_busy="merge")


async def flooded(connection: Connection, messages: int, *, merge: bool = False) -> None:
    """Lets so many messages wait, however that came about."""
    await connection.execute("INSERT INTO conversation_states (device_id, arrivals) VALUES ('d1', $1)", messages)
    await connection.execute(
        "INSERT INTO conversation_messages"
        " (device_id, message_id, arrival, text, status, waiter_until, worker, merge)"
        " SELECT 'd1', 'm' || n, n, 'hello', 'waiting', clock_timestamp() + interval '1 hour', 'w', $2"
        " FROM generate_series(1, $1::integer) n",
        messages,
        merge,
    )


async def flood_with(flood: list[asyncio.Task[Reply]], moorline: Moorline) -> None:
    """Sends many messages as fast as a server could take them in."""
    for number in range(1, FLOOD):
        flood.append(asyncio.create_task(say(moorline, "x" * 1000, f"m{number}", timeout=3)))
        if number % 50 == 0:
            await asyncio.sleep(0)


async def test_a_message_beyond_the_bound_is_refused_and_not_stored(narrow: Turns, connection: Connection) -> None:
    running = await claim(narrow, message("m0"))
    for number in (1, 2):
        assert await begin(narrow, message(f"m{number}")) == Waiting()
    found = await begin(narrow, message("m3"))
    assert isinstance(found, Busy)
    assert (found.full, found.retry_after > 0) == (True, True)
    assert list(await statuses(connection)) == ["m0", "m1", "m2"]
    # Those that wait keep their places, what was answered is replayed, and another device is another queue.
    assert await begin(narrow, message("m2")) == Waiting()
    await narrow.commit(running, record(running))
    assert isinstance(await begin(narrow, message("m0")), Replayed)
    assert isinstance(await begin(narrow, message("m3", device="d2")), OpenTurn)
    # A turn makes room.
    await answer(narrow, message("m1"))
    assert await begin(narrow, message("m3")) == Waiting()


async def test_messages_whose_callers_have_gone_keep_nobody_out(narrow: Turns, connection: Connection) -> None:
    await claim(narrow, message("m0"))
    for number in (1, 2):
        await begin(narrow, message(f"m{number}"))
    await expire_waiter(connection, "m1")
    assert await begin(narrow, message("m3")) == Waiting()
    again = await begin(narrow, message("m1"))
    assert isinstance(again, Busy)
    assert again.full


async def test_a_message_that_was_given_up_before_it_ran_does_not_stay(turns: Turns, connection: Connection) -> None:
    running = await claim(turns, message("m0"))
    await begin(turns, message("m1"))
    await turns.withdraw(message("m1"), claim_id=running.claim_id)
    assert list(await statuses(connection)) == ["m0"]


@pytest.mark.parametrize("asking", ["its next caller", "a recovery"])
async def test_a_message_may_be_given_up_while_it_is_claimed(turns: Turns, connection: Connection, asking: str) -> None:
    running = await claim(turns, message("m0"))
    await begin(turns, message("m1"))
    await turns.commit(running, record(running))
    if asking == "a recovery":
        await expire_waiter(connection, "m1")
    async with connection.transaction():
        await connection.execute("SELECT moorline_withdraw('d1', 'm1', gen_random_uuid())")
        claiming = asyncio.create_task(
            turns.begin_orphaned("d1") if asking == "a recovery" else begin(turns, message("m1"))
        )
        await asyncio.sleep(0.1)
        assert not claiming.done()
    claimed = await claiming
    assert isinstance(claimed, OpenTurn) == (asking == "its next caller")
    if claimed is None:
        await claim(turns, message("m1"))


async def test_one_that_ran_stays_with_its_attempts_and_effects(turns: Turns, connection: Connection) -> None:
    failed = await claim(turns, message("m1"))
    await turns.release(failed, notify="m1", failure="AgentError", give_back=False)
    await claim(turns, message("m0"))
    assert await begin(turns, message("m1")) == Waiting()
    await turns.withdraw(message("m1"), claim_id=failed.claim_id)
    assert (await statuses(connection))["m1"] == ("waiting", 1)


async def test_a_merge_takes_so_many_messages_and_leaves_the_others_to_the_next_turn(
    turns: Turns, connection: Connection
) -> None:
    await flooded(connection, MERGED + 2, merge=True)
    first = await claim(turns, merged("m1"))
    assert ids(first) == [f"m{number}" for number in range(1, MERGED + 1)]
    await turns.commit(first, record(first))
    assert ids(await answer(turns, merged(f"m{MERGED + 1}"))) == [f"m{MERGED + 1}", f"m{MERGED + 2}"]


async def test_a_merge_takes_so_many_bytes_but_always_its_first_message(turns: Turns) -> None:
    running = await claim(turns, message("m0"))
    half = "ä" * (MERGED_BYTES // 4)
    for one in (merged("m1", half), merged("m2", half), merged("m3"), merged("m4", 3 * half), merged("m5")):
        assert await begin(turns, one) == Waiting()
    await turns.commit(running, record(running))
    answered = [ids(await answer(turns, merged(first))) for first in ("m1", "m3", "m4", "m5")]
    assert answered == [["m1", "m2"], ["m3"], ["m4"], ["m5"]]


@pytest.mark.parametrize("merge", [False, True])
async def test_a_claim_costs_little_however_many_messages_wait(
    turns: Turns, connection: Connection, merge: bool
) -> None:
    await answer(turns, message("warm", device="d2"))
    await flooded(connection, FLOOD, merge=merge)
    began = time.perf_counter()
    await answer(turns, message("m1", on_busy="merge" if merge else "wait"))
    assert time.perf_counter() - began < 1


async def test_ten_thousand_calls_in_one_moment_cost_others_less_than_a_second(dsn: str) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "stop")
    async with runtime(dsn, stall) as moorline:
        await say(moorline, "warm", device="d2")
        first = asyncio.create_task(say(moorline, "stop", "m0"))
        await stall.reached.wait()
        flood = [asyncio.create_task(say(moorline, "x" * 1000, f"m{number}", timeout=3)) for number in range(1, FLOOD)]
        began = time.process_time()  # of the processor: the machine may have more to do than this test
        await say(moorline, "hello", device="d3")
        spent = time.process_time() - began
        stall.go_on.set()
        outcomes = await asyncio.gather(first, *flood, return_exceptions=True)
    assert spent < 1
    assert sum(isinstance(outcome, SessionBusy) for outcome in outcomes) == FLOOD - 1 - QUEUE_MAX


async def test_a_flood_of_one_device_holds_no_other_up(dsn: str, connection: Connection) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "stop")
    async with runtime(dsn, stall) as moorline:
        await say(moorline, "warm", device="d2")
        first = asyncio.create_task(say(moorline, "stop", "m0"))
        await stall.reached.wait()
        flood: list[asyncio.Task[Reply]] = []
        flooding = asyncio.create_task(flood_with(flood, moorline))
        waits = []
        for number in range(10):
            began, spent = time.perf_counter(), time.process_time()
            await say(moorline, "hello", f"m{number}", device="d3")
            waits.append((time.process_time() - spent, time.perf_counter() - began))
        await flooding
        # Of the processor less than a second; the rest is what the machine has to do besides, and the database.
        assert max(waits)[0] < 1
        assert max(wait for _, wait in waits) < 5
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        stall.go_on.set()
        await first
    busy = [outcome for outcome in outcomes if isinstance(outcome, SessionBusy)]
    assert len(busy) == FLOOD - 1 - QUEUE_MAX
    assert all(error.full and not error.effects_kept for error in busy)
    assert "As many messages of this device wait as may" in str(busy[0])
    assert {type(outcome) for outcome in outcomes} == {SessionBusy, TurnTimeout}
    # Nothing is left of those that were given up.
    assert await statuses(connection) == {"m0": ("done", 1)}
