"""A session that ends is recorded once, with why and when; a turn that keeps its lock records nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from moorline_checkpoint.database import Database
from moorline_checkpoint.ending import Ending
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns

from .claims import Connection, claim, message, record
from .runtimes import execute

ENDED = "SELECT agent, why, locked_at, ended_at FROM conversation_sessions ORDER BY ended_at, position"
LATER = """
UPDATE conversation_states SET locked_at = locked_at - $1::interval, last_active_at = last_active_at - $1::interval
"""


class Told(NamedTuple):
    agent: str
    why: str
    seconds: Any


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def session_operation_failed(self, operation: str, error: Exception) -> None: ...
    def sessions_cleaned_up(self, count: int) -> None: ...
    def session_ended(self, agent: str, why: str, seconds: float) -> None:
        self.told.append(Told(agent, why, seconds))


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    yield database
    await database.close()


@pytest.fixture
def watcher(database: Database) -> Watcher:
    watcher = Watcher()
    database.session_watchers = [watcher]
    return watcher


@pytest.fixture
def turns(database: Database) -> Turns:
    return Turns(database, default_ttl=600)


@pytest.fixture
def saver(database: Database) -> DeviceCheckpointer:
    return DeviceCheckpointer(database)


async def holding(turns: Turns, agent: str = "hair", message_id: str = "m0") -> None:
    turn = await claim(turns, message(message_id))
    turn.set_lock(agent, None)
    await turns.commit(turn, record(turn))


async def ended(connection: Connection) -> list[tuple[str, str]]:
    """Who and why, in order; what a watcher was told of it is checked with its times."""
    return [(row["agent"], row["why"]) for row in await connection.fetch(ENDED)]


@pytest.mark.parametrize("why", ["released", "handed_over", "started_over", "cleared"])
async def test_a_turn_that_ends_the_session_records_it(
    turns: Turns, watcher: Watcher, connection: Connection, why: Ending
) -> None:
    await holding(turns)
    (taken,) = await connection.fetch("SELECT locked_at FROM conversation_states")
    turn = await claim(turns, message("m1"))
    assert turn.clear_lock(why)
    await turns.commit(turn, record(turn))
    (row,) = await connection.fetch(ENDED)
    (turn_row,) = await connection.fetch("SELECT committed_at FROM conversation_turns WHERE turn_no = 2")
    assert (row["agent"], row["why"], row["locked_at"]) == ("hair", why, taken["locked_at"])
    assert row["ended_at"] == turn_row["committed_at"]
    lasted = (row["ended_at"] - row["locked_at"]).total_seconds()
    assert watcher.told == [Told("hair", why, pytest.approx(lasted))]


async def test_a_turn_that_keeps_or_takes_the_session_records_nothing(turns: Turns, connection: Connection) -> None:
    for number in range(3):
        await holding(turns, message_id=f"m{number}")
    assert await ended(connection) == []


async def test_each_session_of_a_turn_is_recorded(turns: Turns, connection: Connection) -> None:
    await holding(turns)
    turn = await claim(turns, message("m1"))
    turn.clear_lock("handed_over")
    turn.set_lock("nails", None)
    turn.clear_lock("handed_over")
    turn.set_lock("hair", None)
    await turns.commit(turn, record(turn))
    rows = await connection.fetch(ENDED)
    assert [(row["agent"], row["why"]) for row in rows] == [("hair", "handed_over"), ("nails", "handed_over")]
    assert rows[0]["locked_at"] < rows[0]["ended_at"] == rows[1]["locked_at"] == rows[1]["ended_at"]
    assert await connection.fetchval("SELECT locked_at FROM conversation_states") == rows[1]["ended_at"]


async def test_a_lock_over_another_one_ends_it(
    turns: Turns, saver: DeviceCheckpointer, watcher: Watcher, connection: Connection
) -> None:
    await holding(turns)
    turn = await claim(turns, message("m1"))
    turn.set_lock("nails", None)
    await turns.commit(turn, record(turn))
    await saver.set_session_lock("d1", "operator")
    await saver.set_session_lock("d1", "operator")
    await saver.clear_session_lock("d1")
    told = [("hair", "taken"), ("nails", "taken"), ("operator", "cleared")]
    assert await ended(connection) == told
    assert [(each.agent, each.why) for each in watcher.told] == told


@pytest.mark.parametrize("found_by", ["a turn", "a turn of another", "a turn of nobody", "set", "clear", "cleanup"])
async def test_an_expired_session_ended_when_it_expired(
    turns: Turns, saver: DeviceCheckpointer, watcher: Watcher, connection: Connection, found_by: str
) -> None:
    await holding(turns)
    await connection.execute(LATER, timedelta(seconds=1000))
    (before,) = await connection.fetch("SELECT locked_at FROM conversation_states")
    match found_by:
        case "set":
            await saver.set_session_lock("d1", "hair")
        case "clear":
            assert not await saver.clear_session_lock("d1")
        case "cleanup":
            assert await saver.cleanup_expired_sessions() == 1
        case _:
            turn = await claim(turns, message("m1"))
            if found_by != "a turn of nobody":
                turn.set_lock("hair" if found_by == "a turn" else "nails", None)
            await turns.commit(turn, record(turn))
    (row,) = await connection.fetch(ENDED)
    assert (row["agent"], row["why"], row["locked_at"]) == ("hair", "expired", before["locked_at"])
    assert row["ended_at"] - row["locked_at"] == timedelta(seconds=600)
    assert watcher.told == [Told("hair", "expired", pytest.approx(600))]
    assert await saver.cleanup_expired_sessions() == 0
    assert len(await connection.fetch(ENDED)) == 1


async def test_a_commit_that_is_sent_again_records_and_tells_the_same(
    turns: Turns, watcher: Watcher, connection: Connection
) -> None:
    await holding(turns)
    turn = await claim(turns, message("m1"))
    turn.clear_lock("released")
    await turns.commit(turn, record(turn))
    await turns.commit(turn, record(turn))  # as if the first answer had been lost
    assert await ended(connection) == [("hair", "released")]
    assert len(watcher.told) == 2
    assert watcher.told[0] == pytest.approx(watcher.told[1])


async def test_what_somebody_else_did_meanwhile_is_recorded_and_the_turn_s_is_not(
    turns: Turns, saver: DeviceCheckpointer, connection: Connection
) -> None:
    await holding(turns)
    turn = await claim(turns, message("m1"))
    await saver.set_session_lock("d1", "operator")
    turn.clear_lock("released")
    turn.set_lock("nails", None)
    await turns.commit(turn, record(turn))
    assert await ended(connection) == [("hair", "taken")]
    assert await saver.get_session_lock("d1") == "operator"


async def test_a_failed_or_stale_turn_ends_no_session(turns: Turns, connection: Connection) -> None:
    await holding(turns)
    turn = await claim(turns, message("m1"))
    turn.clear_lock("released")
    await turns.release(turn, notify="m1", failure="AgentError", give_back=False)
    assert await ended(connection) == []


async def test_a_lock_that_another_backend_wrote_counts_from_its_time(
    turns: Turns, dsn: str, connection: Connection
) -> None:
    await execute(
        dsn,
        "INSERT INTO conversation_states (device_id, active_agent, locked_at)"
        " VALUES ('d1', 'hair', now() - interval '1 hour')",
    )
    turn = await claim(turns, message("m1"))
    turn.clear_lock("released")
    await turns.commit(turn, record(turn))
    (row,) = await connection.fetch(ENDED)
    assert timedelta(hours=1) <= row["ended_at"] - row["locked_at"] < timedelta(hours=1, seconds=60)
