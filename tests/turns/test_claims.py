"""Claim, lease and fence: a device has one turn at a time, and a turn that was taken over changes nothing."""

import asyncio
from uuid import uuid4

import pytest

from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.queue import Dead, Replayed, Waiting
from moorline_checkpoint.rows import CheckpointRow
from moorline_checkpoint.turn import JournalEntry, OpenTurn
from moorline_checkpoint.turns import MAX_ATTEMPTS, Turns

from .claims import Connection, answer, begin, claim, expire_lease, expire_waiter, ids, message, record, statuses
from .conftest import Workers


async def test_a_claim_asked_again_is_the_same_turn(turns: Turns, connection: Connection) -> None:
    claim_id = uuid4()
    first = await begin(turns, message(), claim_id)
    again = await begin(turns, message(), claim_id)

    assert isinstance(first, OpenTurn)
    assert isinstance(again, OpenTurn)
    assert (again.fence, again.turn_no, again.attempts, ids(again)) == (first.fence, 1, 1, ["m1"])
    assert await statuses(connection) == {"m1": ("running", 1)}


async def test_a_claim_asked_twice_at_once_is_the_same_turn(turns: Turns) -> None:
    claim_id = uuid4()
    found = await asyncio.gather(*(begin(turns, message(), claim_id) for _ in range(5)))
    assert len({turn.fence for turn in found if isinstance(turn, OpenTurn)}) == 1
    assert all(isinstance(turn, OpenTurn) for turn in found)


async def test_a_claim_asked_again_renews_its_lease(turns: Turns, worker: Workers, connection: Connection) -> None:
    claim_id = uuid4()
    await begin(turns, message(), claim_id)
    await expire_lease(connection)
    await begin(turns, message(), claim_id)
    assert await begin(worker(), message("m2")) == Waiting()


async def test_every_claim_has_a_higher_fence_and_a_replay_or_a_wait_raises_none(
    turns: Turns, connection: Connection
) -> None:
    first = await answer(turns, message("m1"))
    assert isinstance(await begin(turns, message("m1")), Replayed)
    assert await connection.fetchval("SELECT fence FROM conversation_states") == first.fence
    second = await claim(turns, message("m2"))
    assert await begin(turns, message("m3")) == Waiting()
    assert second.fence > first.fence
    assert await connection.fetchval("SELECT fence FROM conversation_states") == second.fence


async def test_a_turn_that_was_taken_over_can_commit_nothing(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    stale = await claim(turns, message())
    stale.put(CheckpointRow(ns="", id="c", parent=None, type="t", body=b"", metadata="{}", versions="{}"), ())
    stale.set_lock("hair", 60)
    await expire_lease(connection)
    newer = await claim(worker(), message())
    assert newer.fence > stale.fence

    with pytest.raises(StaleTurn):
        await turns.commit(stale, record(stale, "stale"))
    assert not await turns.heartbeat(stale)
    with pytest.raises(StaleTurn):
        async with turns.transaction(stale):
            pytest.fail("a stale turn was handed a transaction")
    await turns.release(stale, notify="m1", failure="late", give_back=False)

    assert await connection.fetchval("SELECT count(*) FROM conversation_checkpoints") == 0
    assert await connection.fetchval("SELECT count(*) FROM conversation_turns") == 0
    assert await connection.fetchval("SELECT active_agent FROM conversation_states") is None
    assert await statuses(connection) == {"m1": ("running", 2)}
    await worker().commit(newer, record(newer, "newer"))
    assert [entry.record.reply for entry in await turns.transcript("d1")] == ["newer"]


async def test_a_turn_that_was_taken_over_and_committed_stays_what_it_is(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    stale = await claim(turns, message())
    await expire_lease(connection)
    await answer(worker(), message(), "newer")

    with pytest.raises(StaleTurn):
        await turns.commit(stale, record(stale, "stale"))
    assert [entry.record.reply for entry in await turns.transcript("d1")] == ["newer"]


async def test_a_passed_lease_that_nobody_used_changes_nothing(turns: Turns, connection: Connection) -> None:
    turn = await claim(turns, message())
    await expire_lease(connection)
    async with turns.transaction(turn):
        pass
    assert await turns.heartbeat(turn)
    await expire_lease(connection)
    await turns.commit(turn, record(turn))
    assert await statuses(connection) == {"m1": ("done", 1)}


async def test_a_heartbeat_keeps_others_out(turns: Turns, worker: Workers, connection: Connection) -> None:
    turn = await claim(turns, message())
    await expire_lease(connection)
    assert await turns.heartbeat(turn)
    assert await begin(worker(), message("m2")) == Waiting()


async def test_a_transaction_keeps_others_out_as_long_as_it_lasts(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    turn = await claim(turns, message())
    async with turns.transaction(turn) as transaction:
        taking_over = asyncio.create_task(begin(worker(), message()))
        await transaction.note(0, [JournalEntry(kind="database", name="book", intent="{}", result={"value": 1})])
    assert await taking_over == Waiting()


async def test_a_commit_asked_again_is_the_same_commit(turns: Turns) -> None:
    turn = await claim(turns, message())
    await turns.commit(turn, record(turn))
    await turns.commit(turn, record(turn))
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1]
    later = await answer(turns, message("m2"))
    assert later.turn_no == 2
    await turns.commit(turn, record(turn))  # no matter how late
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1, 2]


async def test_turn_numbers_follow_the_commits_without_gaps(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    crashed = await claim(turns, message("m1"))
    await expire_lease(connection)
    failed = await claim(worker(), message("m1"))
    await turns.release(failed, notify="m1", failure="AgentError", give_back=False)
    await answer(turns, message("m2"))
    await answer(turns, message("m1"))
    await answer(turns, message("m3"))

    transcript = await turns.transcript("d1")
    assert [(entry.record.turn_no, entry.texts) for entry in transcript] == [(1, ("m2",)), (2, ("m1",)), (3, ("m3",))]
    assert [entry.committed_at for entry in transcript] == sorted(entry.committed_at for entry in transcript)
    fences = await connection.fetch("SELECT fence FROM conversation_turns ORDER BY turn_no")
    assert [row["fence"] for row in fences] == sorted({row["fence"] for row in fences})
    assert crashed.turn_no == failed.turn_no == 1


async def test_a_message_that_crashes_every_time_is_set_aside_and_the_device_goes_on(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        turn = await claim(worker(), message())
        assert turn.attempts == attempt
        await expire_lease(connection)

    dead = await begin(turns, message())
    assert dead == Dead(error="the process that ran it died each time")
    assert await begin(turns, message()) == dead
    assert await statuses(connection) == {"m1": ("dead", MAX_ATTEMPTS)}
    assert [(letter.device_id, letter.message_id, letter.error) for letter in await turns.dead_letters()] == [
        ("d1", "m1", "the process that ran it died each time")
    ]
    assert (await answer(turns, message("m2"))).turn_no == 1


async def test_the_next_message_sets_a_crashed_one_aside_and_runs_at_once(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    for _ in range(MAX_ATTEMPTS):
        await claim(worker(), message())
        await expire_lease(connection)
    assert ids(await claim(turns, message("m2"))) == ["m2"]
    assert await statuses(connection) == {"m1": ("dead", MAX_ATTEMPTS), "m2": ("running", 1)}


async def test_a_failure_that_was_told_counts_and_the_last_one_sets_aside(turns: Turns, connection: Connection) -> None:
    for _ in range(MAX_ATTEMPTS):
        await turns.release(await claim(turns, message()), notify="m1", failure="AgentError", give_back=False)
    assert await begin(turns, message()) == Dead(error="AgentError")


async def test_a_failure_of_something_else_is_no_attempt(turns: Turns, connection: Connection) -> None:
    for _ in range(MAX_ATTEMPTS + 2):
        turn = await claim(turns, message())
        assert turn.attempts == 1
        await turns.release(turn, notify="m1", failure="StoreUnavailable", give_back=True)
    assert await statuses(connection) == {"m1": ("waiting", 0)}


async def test_a_message_that_was_set_aside_is_tried_again_after_those_that_wait(
    turns: Turns, connection: Connection
) -> None:
    for _ in range(MAX_ATTEMPTS):
        await turns.release(await claim(turns, message()), notify="m1", failure="AgentError", give_back=False)
    running = await claim(turns, message("m2"))
    assert await begin(turns, message("m3")) == Waiting()
    assert await turns.requeue("d1", "m1") == message()
    assert await begin(turns, message()) == Waiting()
    await turns.commit(running, record(running))
    assert await begin(turns, message()) == Waiting()
    await answer(turns, message("m3"))
    assert (await answer(turns, message())).attempts == 1
    assert await turns.dead_letters() == []


async def test_a_crashed_turn_comes_before_every_other_message(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await claim(worker(), message("m1"))
    assert await begin(turns, message("m2")) == Waiting()
    await expire_lease(connection)
    left = await claim(turns, message("m2"))
    assert (ids(left), left.attempts) == (["m1"], 2)
    await turns.commit(left, record(left))
    assert ids(await claim(turns, message("m2"))) == ["m2"]


async def test_what_was_left_behind_is_found(turns: Turns, worker: Workers, connection: Connection) -> None:
    await claim(worker(), message(device="crashed"))
    await claim(worker(), message(device="running"))
    await answer(worker(), message(device="done"))
    await expire_lease(connection, "crashed")

    assert "done" not in await turns.orphaned()
    assert await turns.begin_orphaned("running") is None
    assert await turns.begin_orphaned("done") is None
    assert await turns.begin_orphaned("unknown") is None
    found = await turns.begin_orphaned("crashed")
    assert found is not None
    assert (ids(found), found.attempts) == (["m1"], 2)


async def test_a_message_whose_waiter_died_is_left_behind_too(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    first = await claim(turns, message("m1"))
    assert await begin(worker(), message("m2")) == Waiting()
    await turns.commit(first, record(first))
    assert await turns.begin_orphaned("d1") is None  # its caller may be alive
    await expire_waiter(connection, "m2")
    assert await turns.orphaned() == ["d1"]
    found = await turns.begin_orphaned("d1")
    assert found is not None
    assert ids(found) == ["m2"]


async def test_a_message_whose_caller_was_told_is_not_left_behind(turns: Turns, connection: Connection) -> None:
    await turns.release(await claim(turns, message("m1")), notify="m1", failure="AgentError", give_back=False)
    first = await claim(turns, message("m0"))
    await begin(turns, message("m2"))
    await turns.withdraw(message("m2"), claim_id=uuid4())
    await turns.commit(first, record(first))
    assert await turns.orphaned() == []
    assert await turns.begin_orphaned("d1") is None


async def test_a_failure_that_nobody_was_told_of_is_left_behind_and_holds_nobody_up(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await claim(worker(), message("m1"))
    await expire_lease(connection)
    left = await claim(turns, message("m2"))
    assert ids(left) == ["m1"]
    await turns.release(left, notify=None, failure="AgentError", give_back=False)

    assert ids(await answer(turns, message("m2"))) == ["m2"]
    assert await turns.orphaned() == ["d1"]
    found = await turns.begin_orphaned("d1")
    assert found is not None
    assert (ids(found), found.attempts) == (["m1"], 3)


@pytest.mark.parametrize(("give_back", "attempts"), [(True, 2), (False, 3)])
async def test_an_abandoned_turn_is_finished_by_the_next_claim(
    turns: Turns, worker: Workers, connection: Connection, give_back: bool, attempts: int
) -> None:
    await claim(worker(), message("m1"))
    await expire_lease(connection)
    left = await claim(turns, message("m2"))
    await turns.abandon(left, give_back=give_back)
    await turns.abandon(left, give_back=give_back)  # its answer was lost
    again = await claim(worker(), message("m2"))
    assert (ids(again), again.attempts) == (["m1"], attempts)
    await turns.abandon(left, give_back=give_back)  # another process has it by now
    assert await turns.heartbeat(again)
    assert await begin(turns, message("m2")) == Waiting()


async def test_a_claim_that_nobody_learned_of_is_withdrawn_with_its_message(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    claim_id = uuid4()
    await begin(turns, message("m1"), claim_id)
    await turns.withdraw(message("m1"), claim_id=claim_id)
    await turns.withdraw(message("m1"), claim_id=claim_id)
    assert await statuses(connection) == {}
    assert ids(await answer(worker(), message("m2"))) == ["m2"]
    assert (await answer(worker(), message("m1"))).attempts == 1


async def test_a_withdrawn_claim_of_a_crashed_turn_leaves_it_to_the_next(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await claim(worker(), message("m1"))
    await expire_lease(connection)
    claim_id = uuid4()
    await begin(turns, message("m2"), claim_id)
    await turns.withdraw(message("m2"), claim_id=claim_id)
    left = await claim(worker(), message("m3"))
    assert (ids(left), left.attempts) == (["m1"], 2)
    assert await statuses(connection) == {"m1": ("running", 2), "m3": ("waiting", 0)}


async def test_what_was_told_to_one_caller_is_tried_again_by_hand(turns: Turns, connection: Connection) -> None:
    await turns.release(await claim(turns, message()), notify="m1", failure="AgentError", give_back=False)
    assert await turns.requeue("d1", "m1") == message()
    assert (await answer(turns, message())).attempts == 1
    assert await turns.requeue("d1", "m1") is None
    assert await turns.requeue("d1", "unknown") is None
    assert await turns.requeue("unknown", "m1") is None


async def test_a_revival_asked_again_is_the_same(turns: Turns, connection: Connection) -> None:
    for _ in range(MAX_ATTEMPTS):
        await turns.release(await claim(turns, message()), notify="m1", failure="AgentError", give_back=False)
    assert await turns.requeue("d1", "m1") == await turns.requeue("d1", "m1") == message()
    assert await statuses(connection) == {"m1": ("waiting", 0)}
