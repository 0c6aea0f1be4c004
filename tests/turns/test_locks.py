"""A locked row of a device holds up no other device; a retry gets through and sees the current state."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from uuid import uuid4

import pytest

from moorline_checkpoint import database
from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.queue import Replayed, Waiting
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import JournalEntry, OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import Connection, answer, begin, claim, expire_lease, ids, message, record
from .conftest import Workers
from .runtimes import execute

HOLD = "SELECT FROM conversation_states WHERE device_id = $1 FOR UPDATE"


@pytest.fixture
def _deadlocks_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the statement that the database ended would be sent again."""
    monkeypatch.setattr(database, "DEADLOCKS", 0)


async def hold(connection: Connection, device: str = "d1") -> None:
    """Locks the row of a device until COMMIT."""
    await connection.execute("BEGIN")
    await connection.fetch(HOLD, device)


async def asked(dsn: str, statement: str, sessions: int = 1) -> None:
    """Returns when the last statement of so many sessions has found the row locked."""
    vain = f"""
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle' AND query LIKE '%moorline_{statement}_%'
            AND query_start > (
                SELECT max(query_start) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction')
    """  # noqa: S608 - a word of the test
    async with asyncio.timeout(30):
        while (await execute(dsn, vain))[0]["count"] != sessions:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def lock_waits(dsn: str, number: int) -> None:
    """Returns when the server shows so many sessions of the database that wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while (await execute(dsn, waiting))[0]["count"] != number:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def test_a_begin_after_a_commit_that_was_held_up_starts_from_what_that_left(
    dsn: str, turns: Turns, worker: Workers, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    turn.set_lock("hair", None)
    await hold(connection)
    committing = asyncio.create_task(turns.commit(turn, record(turn)))
    await asked(dsn, "commit")
    workers = worker(), worker()
    beginning = [
        asyncio.create_task(begin(own, message(message_id)))
        for own, message_id in zip(workers, ("m2", "m1"), strict=True)
    ]
    await asked(dsn, "begin", 2)
    assert not committing.done()
    await connection.execute("COMMIT")

    await committing
    found = await asyncio.gather(*beginning)
    second, replayed = [
        await begin(own, message(message_id)) if isinstance(one, Waiting) else one
        for own, message_id, one in zip(workers, ("m2", "m1"), found, strict=True)
    ]
    assert isinstance(second, OpenTurn)
    assert (second.turn_no, second.holder) == (2, "hair")
    assert isinstance(replayed, Replayed)


async def test_a_locked_device_holds_up_no_other_of_its_batch(turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m1"))
    await hold(connection)
    others = [message("m1", device=f"other {number}") for number in range(20)]
    held_up, *begun = [asyncio.create_task(begin(turns, one)) for one in (message("m2"), *others)]
    opened = await asyncio.gather(*begun)
    await asyncio.gather(*(turns.commit(turn, record(turn)) for turn in opened if isinstance(turn, OpenTurn)))
    assert not held_up.done()
    await connection.execute("COMMIT")
    assert isinstance(await held_up, OpenTurn)


async def test_of_claims_that_were_held_up_together_one_wins(dsn: str, worker: Workers, connection: Connection) -> None:
    await answer(worker(), message("m0"))
    await hold(connection)
    beginning = [asyncio.create_task(begin(worker(), message(f"m{number}"))) for number in range(1, 6)]
    await asked(dsn, "begin", 5)
    await connection.execute("COMMIT")
    found = await asyncio.gather(*beginning)
    assert [type(one) for one in found].count(OpenTurn) == 1
    assert [one for one in found if not isinstance(one, OpenTurn)] == [Waiting()] * 4


async def test_the_first_messages_of_a_new_device_do_not_fail_each_other(worker: Workers) -> None:
    found = await asyncio.gather(*(begin(worker(), message(f"m{number}", device="new")) for number in range(5)))
    assert [type(one) for one in found].count(OpenTurn) == 1


async def test_a_tools_transaction_holds_off_a_claim_and_not_another_device(
    dsn: str, turns: Turns, worker: Workers, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    await expire_lease(connection)
    async with turns.transaction(turn) as transaction:
        taking_over = asyncio.create_task(claim(worker(), message("m1")))
        await asked(dsn, "begin")
        await answer(worker(), message(device="d2"))
        await transaction.note(0, [JournalEntry(kind="database", name="book", intent="{}", result={"value": 1})])
        assert not taking_over.done()
    newer = await taking_over
    assert [entry.name for entry in newer.journal] == ["book"]
    with pytest.raises(StaleTurn):
        await turns.commit(turn, record(turn))


async def test_a_commit_that_was_held_up_by_an_erasure_is_stale_and_brings_nothing_back(
    dsn: str, turns: Turns, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    # The erasure has locked the device's row, and waits for this one.
    await connection.execute("BEGIN")
    await connection.fetch("SELECT FROM conversation_messages FOR UPDATE")
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        erasing = asyncio.create_task(saver.adelete_thread("d1"))
        await lock_waits(dsn, 1)
        committing = asyncio.create_task(turns.commit(turn, record(turn)))
        await asked(dsn, "commit")
        await connection.execute("COMMIT")
        await erasing
        with pytest.raises(StaleTurn):
            await committing
    assert await turns.transcript("d1") == []
    assert (await execute(dsn, "SELECT FROM conversation_messages")) == []
    assert (await answer(turns, message("m1"))).turn_no == 1


async def test_an_erasure_holds_off_the_first_message_of_a_device_too(
    dsn: str, turns: Turns, connection: Connection
) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        await turns.commit(turn := await claim(turns, message("m1")), record(turn))
        await execute(dsn, "DELETE FROM conversation_states")
        await connection.execute("BEGIN")
        await connection.fetch("SELECT FROM conversation_messages FOR UPDATE")
        erasing = asyncio.create_task(saver.adelete_thread("d1"))
        await lock_waits(dsn, 1)
        beginning = asyncio.create_task(claim(turns, message("m2")))
        await lock_waits(dsn, 2)
        await connection.execute("COMMIT")
        await erasing
    turn = await beginning
    await turns.commit(turn, record(turn))
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1]


@pytest.mark.usefixtures("_deadlocks_are_errors")
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_to_a_device_at_once_nothing_deadlocks(dsn: str, worker: Workers, seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - repeatable, no secret
    workers = [worker() for _ in range(4)]

    async def happen(turns: Turns, number: int) -> None:
        incoming = message(f"m{chance.randrange(12)}", on_busy=chance.choice(("wait", "reject", "merge")))
        claim_id = uuid4()
        turn = await begin(turns, incoming, claim_id)
        if not isinstance(turn, OpenTurn):
            if chance.random() < 0.5:
                await turns.withdraw(incoming, claim_id=claim_id)
            if chance.random() < 0.2:
                await turns.requeue("d1", incoming.message_id)
            return
        endings: list[Callable[[], Awaitable[object]]] = [
            lambda: turns.commit(turn, record(turn)),
            lambda: turns.release(turn, notify=incoming.message_id, failure="AgentError", give_back=False),
            lambda: turns.abandon(turn, give_back=True),
            lambda: turns.withdraw(incoming, claim_id=claim_id),
        ]
        chance.shuffle(endings)
        ended = await asyncio.gather(
            *(ending() for ending in (lambda: turns.heartbeat(turn), *endings[:2])), return_exceptions=True
        )
        assert {type(one) for one in ended if isinstance(one, BaseException)} <= {StaleTurn}
        if number % 3 == 0:
            async with DeviceCheckpointer.from_conn_string(dsn) as saver:
                await saver.adelete_thread("d1")

    async def keep_on(turns: Turns) -> None:
        for number in range(1, 41):
            await happen(turns, number)

    await asyncio.gather(*(keep_on(turns) for turns in workers for _ in range(3)))


@pytest.mark.usefixtures("_deadlocks_are_errors")
async def test_merged_and_withdrawn_at_once_nothing_deadlocks(dsn: str, turns: Turns, worker: Workers) -> None:
    """A claim of many messages and their withdrawals use the same rows."""
    for round_ in range(10):
        first = await claim(turns, message(f"{round_} first"))
        waiting = [message(f"{round_} {number}", on_busy="merge") for number in range(6)]
        for one in waiting:
            await begin(turns, one)
        await turns.commit(first, record(first))
        other = worker()
        found, *_ = await asyncio.gather(
            begin(turns, waiting[0]), *(other.withdraw(one, claim_id=uuid4()) for one in reversed(waiting[1:]))
        )
        assert isinstance(found, OpenTurn)
        await turns.commit(found, record(found))
        assert ids(found)[0] == f"{round_} 0"
