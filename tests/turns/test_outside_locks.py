"""A lock that somebody else sets or clears while a turn is open stays as it is; the turn's own is dropped."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import Connection, claim, expire_lease, message, record
from .conftest import Workers

Ending = Callable[[OpenTurn], Any]

ENDINGS: list[Ending] = [
    lambda turn: turn.set_lock("hair", 60),
    lambda turn: turn.set_lock("nails", 60),
    lambda turn: turn.clear_lock(),
    lambda _: None,
]
"""What a turn may do to the lock."""


@pytest.fixture
async def saver(dsn: str) -> AsyncIterator[DeviceCheckpointer]:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        yield saver


@pytest.fixture(params=[None, "hair"])
async def holder(request: pytest.FixtureRequest, turns: Turns) -> str | None:
    """The agent that holds the device before the turn."""
    turn = await claim(turns, message("m0"))
    if request.param is not None:
        turn.set_lock(request.param, 600)
    await turns.commit(turn, record(turn))
    holder: str | None = request.param
    return holder


async def ttl(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT session_ttl FROM conversation_states"))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("agent", ["operator", "hair"])
async def test_a_lock_that_was_set_meanwhile_stays_with_its_time_to_live(  # noqa: PLR0917 - fixtures
    turns: Turns, saver: DeviceCheckpointer, connection: Connection, holder: str | None, agent: str, ending: Ending
) -> None:
    turn = await claim(turns, message("m1"))
    assert turn.holder == holder
    await saver.set_session_lock("d1", agent, ttl=3600)
    before = await saver.get_session("d1")
    ending(turn)
    await turns.commit(turn, record(turn))
    after = await saver.get_session("d1")
    assert before is not None
    assert after is not None
    assert (after.active_agent, after.locked_at) == (agent, before.locked_at)
    assert await ttl(connection) == 3600
    assert (await claim(turns, message("m2"))).holder == agent


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_lock_that_was_cleared_meanwhile_stays_cleared(
    turns: Turns, saver: DeviceCheckpointer, ending: Ending
) -> None:
    await saver.set_session_lock("d1", "hair")
    turn = await claim(turns, message("m1"))
    assert await saver.clear_session_lock("d1")
    ending(turn)
    await turns.commit(turn, record(turn))
    assert await saver.get_session_lock("d1") is None


async def test_a_lock_of_a_backend_that_writes_it_by_itself_counts_as_well(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection, holder: str | None
) -> None:
    turn = await claim(turns, message("m1"))
    await connection.execute("UPDATE conversation_states SET active_agent = 'operator', locked_at = now()")
    turn.set_lock("nails", None)
    await turns.commit(turn, record(turn))
    assert await saver.get_session_lock("d1") == "operator"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_lock_of_before_the_turn_is_the_turns_to_change(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection, ending: Ending
) -> None:
    await saver.set_session_lock("d1", "hair")
    turn = await claim(turns, message("m1"))
    await turns.heartbeat(turn)
    ending(turn)
    await turns.commit(turn, record(turn))
    assert await saver.get_session_lock("d1") == turn.active_agent


async def test_an_expired_lock_is_the_turns_to_change(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection
) -> None:
    await saver.set_session_lock("d1", "hair", ttl=60)
    await connection.execute(
        "UPDATE conversation_states SET locked_at = locked_at - interval '1 hour',"
        " last_active_at = last_active_at - interval '1 hour'"
    )
    turn = await claim(turns, message("m1"))
    assert turn.holder is None
    turn.set_lock("nails", None)
    await turns.commit(turn, record(turn))
    assert await saver.get_session_lock("d1") == "nails"


async def test_a_sweep_passes_a_device_by_whose_turn_is_open(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection
) -> None:
    await saver.set_session_lock("d1", "hair", ttl=60)
    await saver.set_session_lock("d2", "hair", ttl=60)
    turn = await claim(turns, message("m1"))
    await connection.execute(
        "UPDATE conversation_states SET locked_at = locked_at - interval '1 hour',"
        " last_active_at = last_active_at - interval '1 hour'"
    )
    assert await saver.cleanup_expired_sessions() == 1
    turn.set_lock("hair", None)
    await turns.commit(turn, record(turn))
    assert await saver.get_session_lock("d1") == "hair"
    assert await saver.get_session_lock("d2") is None


async def test_a_lock_that_was_set_after_the_process_died_stays_when_another_finishes_the_turn(
    turns: Turns, worker: Workers, saver: DeviceCheckpointer, connection: Connection, holder: str | None
) -> None:
    await claim(turns, message("m1"))
    await expire_lease(connection)
    await saver.set_session_lock("d1", "operator")
    other = worker()
    again = await claim(other, message("m1"))
    again.set_lock("nails", None)
    await other.commit(again, record(again))
    assert await saver.get_session_lock("d1") == "operator"


async def test_only_a_lock_that_was_kept_is_logged(
    turns: Turns, saver: DeviceCheckpointer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moorline.session")
    turn = await claim(turns, message("m1"))
    await saver.set_session_lock("d1", "operator")
    turn.set_lock("nails", None)
    await turns.commit(turn, record(turn))
    assert [line.split(" -> ")[1] for line in caplog.messages] == ["operator"]


async def test_what_else_a_turn_brought_is_committed(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    await saver.set_session_lock("d1", "operator")
    await turns.commit(turn, record(turn, "hello"))
    await turns.commit(turn, record(turn, "hello"))
    assert await connection.fetchval("SELECT reply FROM conversation_turns") == "hello"
    assert await connection.fetchval("SELECT status FROM conversation_messages") == "done"
