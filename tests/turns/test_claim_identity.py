"""A claim is its ID: neither the clock nor an erasure nor an equal fence lets a stale turn pass for the open one."""

import pytest

from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.rows import CheckpointRow
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import Connection, answer, claim, message, record, statuses
from .conftest import Workers

HOUR = 3600 * 10**6
"""Microseconds."""


async def erase(dsn: str, device: str = "d1") -> None:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        assert await saver.erase(device)


async def refused(turns: Turns, turn: OpenTurn) -> None:
    """Everything that the stale turn tries is refused."""
    with pytest.raises(StaleTurn):
        await turns.commit(turn, record(turn, "stale"))
    with pytest.raises(StaleTurn):
        async with turns.transaction(turn):
            pytest.fail("a stale turn was handed a transaction")
    assert not await turns.heartbeat(turn)
    await turns.release(turn, notify="m1", failure="late", give_back=False)
    await turns.abandon(turn, give_back=True)


async def microseconds(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000000"))


async def test_a_fence_is_the_clock_of_its_claim(turns: Turns, connection: Connection) -> None:
    before = await microseconds(connection)
    turn = await claim(turns, message())
    assert before <= turn.fence <= await microseconds(connection)


async def test_the_fences_of_a_device_rise_where_the_clock_was_set_back(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    first = await answer(turns, message("m1"))
    ahead = await microseconds(connection) + HOUR
    await connection.execute("UPDATE conversation_states SET fence = $1", ahead)
    second = await answer(worker(), message("m2"))
    third = await answer(turns, message("m3"))
    assert [first.fence < second.fence, second.fence, third.fence] == [True, ahead + 1, ahead + 2]
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1, 2, 3]


async def test_a_turn_that_was_open_when_the_device_was_erased_is_stale_though_its_fence_is_the_higher_one(
    dsn: str, turns: Turns, worker: Workers, connection: Connection
) -> None:
    await answer(turns, message("m0"))
    await connection.execute("UPDATE conversation_states SET fence = $1", await microseconds(connection) + HOUR)
    stale = await claim(turns, message("m1"))
    await erase(dsn)
    newer = await claim(worker(), message("m1"))
    assert newer.fence < stale.fence
    assert newer.turn_no < stale.turn_no

    await refused(turns, stale)
    assert await statuses(connection) == {"m1": ("running", 1)}
    await worker().commit(newer, record(newer, "newer"))
    await refused(turns, stale)
    assert [entry.record.reply for entry in await turns.transcript("d1")] == ["newer"]


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "open"])
async def test_a_stale_turn_with_the_number_and_the_fence_of_another_is_refused(
    dsn: str, turns: Turns, worker: Workers, connection: Connection, committed: bool
) -> None:
    stale = await claim(turns, message("m1"))
    await erase(dsn)
    newer = await claim(worker(), message("m1"))
    await connection.execute("UPDATE conversation_states SET fence = $1", stale.fence)
    newer.fence = stale.fence
    assert newer.turn_no == stale.turn_no
    if committed:
        await worker().commit(newer, record(newer, "newer"))

    await refused(turns, stale)
    if not committed:
        await worker().commit(newer, record(newer, "newer"))
    assert [entry.record.reply for entry in await turns.transcript("d1")] == ["newer"]


async def test_a_turn_whose_device_was_erased_leaves_nothing(dsn: str, turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m0"))
    stale = await claim(turns, message("m1"))
    await erase(dsn)
    await refused(turns, stale)
    for table in ("states", "messages", "turns", "checkpoints"):
        assert await connection.fetchval(f"SELECT count(*) FROM conversation_{table}") == 0  # noqa: S608
    assert (await answer(turns, message("m1"))).turn_no == 1


async def left(turns: Turns, message_id: str, head: str, body: bytes) -> None:
    """Runs a turn that leaves this head."""
    turn = await claim(turns, message(message_id))
    turn.set_lock("desk", None)
    turn.put(CheckpointRow("desk", head, None, "bytes", body, "{}", "{}"), ())
    await turns.commit(turn, record(turn))


async def test_a_cached_head_is_dropped_where_the_fence_went_back(
    dsn: str, turns: Turns, worker: Workers, connection: Connection
) -> None:
    """A database that fell back may have lost turns and have other ones under the same numbers."""
    await answer(turns, message("m0"))
    await connection.execute("UPDATE conversation_states SET fence = $1", await microseconds(connection) + HOUR)
    await left(turns, "m1", "head", b"lost")
    await erase(dsn)
    await left(worker(), "m1", "head", b"there")

    turn = await claim(turns, message("m2"))
    assert "desk" not in turn.prefetched
    await turns.release(turn, notify=None, failure="AgentError", give_back=True)
    turn = await claim(turns, message("m2"))
    assert turn.prefetched["desk"].head.checkpoint.body == b"there"
