"""Effects of a message whose turn failed: the device's next turns are told of them until the message is finished."""

from uuid import uuid4

import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import JournalEntry, OpenTurn, UnfinishedEffect
from moorline_checkpoint.turns import MAX_ATTEMPTS, Turns

from .claims import Connection, answer, begin, claim, expire_lease, ids, message, record
from .conftest import Workers

RUNG = JournalEntry(kind="outside", agent="desk", name="ring", intent='{"what": "Ada"}', result={"value": "rung"})
ANSWER = JournalEntry(kind="answer", agent="desk", name="desk", intent={"content": "calling"})
REFUSED = JournalEntry(kind="database", agent="desk", name="book", intent="{}", result={"refused": "full"})
BEGUN = JournalEntry(kind="outside", agent="desk", name="ring", intent="{}")


def told(message_id: str = "m1", entry: JournalEntry = RUNG) -> UnfinishedEffect:
    """What the next turn is told of a journal entry."""
    return UnfinishedEffect(
        message_id=message_id, agent=entry.agent, name=entry.name, intent=entry.intent, result=entry.result
    )


async def fail(turns: Turns, turn: OpenTurn, *entries: JournalEntry, counts: bool = False) -> bool:
    """Journals this in the turn, lets it fail, and returns whether effects stand."""
    async with turns.transaction(turn) as transaction:
        await transaction.note(len(turn.journal), entries)
    return await turns.release(turn, notify=turn.messages[0].id, failure="AgentError", give_back=not counts)


async def flagged(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT unfinished FROM conversation_states"))


async def test_the_next_turn_is_told_what_an_unfinished_one_has_done_and_by_which_agent(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    assert await fail(turns, await claim(turns, message("m1")), ANSWER, RUNG, BEGUN)
    assert await flagged(connection)
    for one, message_id in ((turns, "m2"), (worker(), "m3")):
        turn = await answer(one, message(message_id))
        assert turn.unfinished == (told(), told(entry=BEGUN))
        assert turn.journal == ()


async def test_it_is_told_no_more_when_the_message_is_finished(turns: Turns, connection: Connection) -> None:
    await fail(turns, await claim(turns, message("m1")), RUNG)
    again = await claim(turns, message("m1"))
    assert again.unfinished == ()  # it has its journal
    assert [(entry.agent, entry.name) for entry in again.journal] == [("desk", "ring")]
    await turns.commit(again, record(again))
    assert not await flagged(connection)
    assert (await answer(turns, message("m2"))).unfinished == ()


async def test_it_is_told_no_more_when_the_message_is_set_aside_and_again_when_it_is_requeued(
    turns: Turns, connection: Connection
) -> None:
    assert await fail(turns, await claim(turns, message("m1")), RUNG, counts=True)
    for attempt in range(2, MAX_ATTEMPTS + 1):
        turn = await claim(turns, message("m1"))
        assert await turns.release(turn, notify="m1", failure="AgentError", give_back=False)
        assert await flagged(connection) is (attempt < MAX_ATTEMPTS)
    assert (await answer(turns, message("m2"))).unfinished == ()
    await turns.requeue("d1", "m1")
    assert (await answer(turns, message("m3"))).unfinished == (told(),)


@pytest.mark.parametrize("entries", [(ANSWER,), (ANSWER, REFUSED)], ids=["only asked", "refused"])
async def test_what_did_nothing_is_not_told(
    turns: Turns, connection: Connection, entries: tuple[JournalEntry, ...]
) -> None:
    assert not await fail(turns, await claim(turns, message("m1")), *entries)
    assert not await flagged(connection)


async def test_a_turn_that_was_taken_over_says_what_stands(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    stale = await claim(turns, message("m1"))
    async with turns.transaction(stale) as transaction:
        await transaction.note(0, [RUNG])
    await expire_lease(connection)
    await claim(worker(), message("m1"))
    assert await turns.release(stale, notify="m1", failure="late", give_back=False)


async def test_a_withdrawal_says_whether_an_earlier_attempt_did_something(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await fail(turns, await claim(turns, message("m1")), RUNG, counts=True)
    running = await claim(worker(), message("m0"))
    for message_id, kept in (("m1", True), ("m2", False)):
        await begin(turns, message(message_id))
        assert await turns.withdraw(message(message_id), claim_id=uuid4()) is kept
    await worker().commit(running, record(running))
    again = await claim(turns, message("m1"))
    assert await turns.withdraw(message("m1"), claim_id=again.claim_id)
    assert (await answer(turns, message("m3"))).unfinished == (told(),)


async def test_effects_of_merged_messages_belong_to_the_first(turns: Turns, connection: Connection) -> None:
    running = await claim(turns, message("m0"))
    for message_id in ("m1", "m2"):
        await begin(turns, message(message_id, on_busy="merge"))
    await turns.commit(running, record(running))
    both = await claim(turns, message("m1", on_busy="merge"))
    assert ids(both) == ["m1", "m2"]
    await fail(turns, both, RUNG, counts=True)
    assert (await answer(turns, message("m3"))).unfinished == (told(),)
    running = await claim(turns, message("m4"))
    await begin(turns, message("m2"))
    assert await turns.withdraw(message("m2"), claim_id=uuid4())
    await turns.commit(running, record(running))
    again = await claim(turns, message("m2"))
    assert (ids(again), again.unfinished) == (["m1", "m2"], ())


async def test_an_erasure_forgets_it(dsn: str, turns: Turns, connection: Connection) -> None:
    await fail(turns, await claim(turns, message("m1")), RUNG)
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        await saver.erase("d1")
    assert (await answer(turns, message("m2"))).unfinished == ()


async def test_a_turn_of_a_device_without_the_flag_reads_no_effects(turns: Turns, connection: Connection) -> None:
    reads = "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = $1"
    await answer(turns, message("m1"))
    async with connection.transaction():
        await connection.fetch(
            "SELECT moorline_claim('d1', 'm2', gen_random_uuid(), 'w', 'hello', NULL, '{}', 'wait', 60, 15, 15, 3, 200)"
        )
        assert await connection.fetchval(reads, "conversation_effects") == 0
        assert await connection.fetchval(reads, "conversation_messages") > 0
