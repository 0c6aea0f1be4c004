"""A caller may be cancelled at any step of a turn: the turn is finished or released, and nothing of it is left over."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from itertools import count
from typing import Literal

import pytest

from moorline import Moorline
from moorline_checkpoint.turns import LEASE_SECONDS
from tests.faults import steps
from tests.faults.backends import all_idle, kill
from tests.faults.conftest import Report
from tests.faults.laboratory import Way
from tests.faults.steps import Steps
from tests.faults.worker import chance_of
from tests.turns.runtimes import execute, runtime, say

POOL = 2

STRIDES = [
    pytest.param({"hot": 7, "lost": 13}, id="some steps"),
    pytest.param({"hot": 1, "lost": 1}, id="every step", marks=pytest.mark.laboratory),
]
"""The distance between the steps at which callers are cancelled."""


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("text", ["hello", "book table"])
@pytest.mark.parametrize("on_cancel", ["finish", "release"])
@pytest.mark.parametrize("connections", ["hot", "lost"])
def test_a_caller_that_is_cancelled_leaves_one_turn_or_none(
    *,
    dsn: str,
    reached: Way,
    seed: int,
    stride: dict[str, int],
    text: str,
    on_cancel: str,
    connections: Literal["hot", "lost"],
    report: Report,
) -> None:
    """Whatever became of the turn, nobody has to wait for a lease, all connections are free, and the message, delivered
    again, is answered once and has one effect. `lost`: the turn finds its connections gone."""
    every = stride[connections]
    first = chance_of(seed, reached.dsn.partition(":")[0], text, on_cancel).randrange(every)

    async def at_each(stepped: Steps) -> None:
        await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
        async with runtime(
            reached.dsn, pool_max=POOL, statement_cache_size=reached.statement_cache_size, on_cancel=on_cancel
        ) as moorline:
            await say(moorline, "hello", device="before")
            for step in count(first, every):
                if connections == "lost":
                    await kill(dsn)
                device = f"d{step}"
                call = asyncio.create_task(say(moorline, text, "m1", device))
                stepped.cancel(call, after=step)
                await asyncio.wait([call])
                await release(dsn)
                assert await say(moorline, text, "m1", device) == f"1: {text.removeprefix('book ')}"
                await all_there(dsn, moorline)
                if not call.cancelled():
                    break
            assert call.result() == f"1: {text.removeprefix('book ')}"
        report(cancelled=(step - first) // every)

    steps.run(at_each)
    asyncio.run(happened_once(dsn, text))


async def release(dsn: str) -> None:
    """Returns when nothing is claimed and nothing waits, which must not take a lease."""
    async with asyncio.timeout(LEASE_SECONDS / 3):
        while await execute(dsn, HELD):  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


HELD = """
    SELECT device_id::text FROM conversation_states WHERE claim_id IS NOT NULL
    UNION ALL
    SELECT device_id FROM conversation_messages WHERE status = 'running' OR waiter_until > clock_timestamp()
"""


async def all_there(dsn: str, moorline: Moorline) -> None:
    """All connections of the pool can be acquired at once, and none is in a transaction."""
    async with AsyncExitStack() as stack, asyncio.timeout(5):
        for _ in range(POOL):
            await stack.enter_async_context(moorline._backend.saver.database.connection())
    assert await all_idle(dsn) <= POOL


async def happened_once(dsn: str, text: str) -> None:
    turns = await execute(dsn, "SELECT device_id, turn_no, attempts FROM conversation_turns")
    assert {(row["turn_no"], row["attempts"]) for row in turns} == {(1, 1)}
    devices = {row["device_id"] for row in turns} - {"before"}
    assert len(turns) == len(devices) + 1
    booked = Counter(row["device_id"] for row in await execute(dsn, "SELECT device_id FROM bookings"))
    assert booked == Counter(devices if text.startswith("book") else ())
