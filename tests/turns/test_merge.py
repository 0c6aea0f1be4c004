"""Adjacent waiting messages that may be merged are answered by one turn, all with its reply."""

import pytest

from moorline_checkpoint.messages import IncomingMessage, Resume
from moorline_checkpoint.queue import Dead, Replayed, StaleResume, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import MAX_ATTEMPTS, Turns

from .claims import Connection, answer, begin, claim, expire_lease, expire_waiter, ids, message, record, statuses
from .conftest import Workers


def merged(message_id: str, **others: object) -> IncomingMessage:
    """A message that may be merged."""
    return message(message_id, on_busy="merge", **others)  # type: ignore[arg-type]  # passed on as they are


async def in_queue(turns: Turns, *waiting: IncomingMessage) -> None:
    """Lets these messages wait, in this order, with no turn open."""
    running = await claim(turns, message("m0"))
    for one in waiting:
        assert await begin(turns, one) == Waiting()
    await turns.commit(running, record(running))


async def in_queue_after_a_question(turns: Turns, *waiting: IncomingMessage) -> None:
    """Like `in_queue`, after a turn that asked with the interrupt `i`."""
    asked = await claim(turns, message("question"))
    await turns.commit(asked, record(asked, interrupt={"id": "i", "value": "which?"}))
    running = await claim(turns, message("m0"))
    for one in waiting:
        assert await begin(turns, one) == Waiting()
    await turns.release(running, notify="m0", failure="AgentError", give_back=False)


async def test_consecutive_messages_are_one_turn_and_all_get_its_reply(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await in_queue(turns, merged("m1"), merged("m2"), merged("m3"))
    turn = await claim(turns, merged("m2"))
    assert [(one.id, one.text) for one in turn.messages] == [("m1", "m1"), ("m2", "m2"), ("m3", "m3")]
    assert await begin(turns, merged("m1")) == Waiting()

    await turns.commit(turn, record(turn, "to all three"))
    for message_id in ("m1", "m2", "m3"):
        found = await begin(worker(), message(message_id))
        assert isinstance(found, Replayed)
        assert (found.record.reply, found.record.turn_no) == ("to all three", 2)
    assert [entry.texts for entry in await turns.transcript("d1")] == [("m0",), ("m1", "m2", "m3")]


async def test_the_set_is_fixed_when_it_is_claimed(turns: Turns, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    turn = await claim(turns, merged("m1"))
    assert await begin(turns, merged("m3")) == Waiting()
    await turns.commit(turn, record(turn))
    assert await statuses(connection) == {"m0": ("done", 1), "m1": ("done", 1), "m2": ("done", 1), "m3": ("waiting", 0)}


async def test_a_crashed_set_is_run_again_whole(turns: Turns, worker: Workers, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    await claim(worker(), merged("m1"))
    await begin(turns, merged("m3"))
    await expire_lease(connection)
    turn = await claim(turns, merged("m3"))
    assert (ids(turn), turn.attempts) == (["m1", "m2"], 2)


async def test_a_set_that_failed_stays_together(turns: Turns, worker: Workers, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    turn = await claim(turns, merged("m1"))
    await turns.release(turn, notify="m1", failure="AgentError", give_back=False)
    assert await begin(worker(), message("m3")) != Waiting()
    await expire_lease(connection)
    await answer(worker(), message("m3"))
    again = await claim(turns, merged("m2"))
    assert (ids(again), again.attempts) == (["m1", "m2"], 2)


async def test_a_set_that_failed_takes_nobody_in(turns: Turns, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    await turns.release(await claim(turns, merged("m1")), notify="m1", failure="AgentError", give_back=False)
    running = await claim(turns, message("m0b"))
    for one in (merged("m1"), merged("m2"), merged("m3")):
        assert await begin(turns, one) == Waiting()
    await turns.commit(running, record(running))
    assert await begin(turns, merged("m3")) == Waiting()
    assert ids(await answer(turns, merged("m2"))) == ["m1", "m2"]
    assert ids(await answer(turns, merged("m3"))) == ["m3"]


async def test_a_set_that_was_set_aside_is_tried_again_whole(turns: Turns, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    for _ in range(MAX_ATTEMPTS):
        turn = await claim(turns, merged("m1"))
        await turns.release(turn, notify="m1", failure="AgentError", give_back=False)
    assert {letter.message_id for letter in await turns.dead_letters()} == {"m1", "m2"}
    await answer(turns, message("m3"))

    assert await turns.requeue("d1", "m2") == message("m2")
    assert list(await statuses(connection)) == ["m0", "m3", "m1", "m2"]
    again = await claim(turns, message("m2"))
    assert (ids(again), again.attempts) == (["m1", "m2"], 1)


async def test_a_set_that_crashed_every_time_is_set_aside_whole(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await in_queue(turns, merged("m1"), merged("m2"))
    for _ in range(MAX_ATTEMPTS):
        await claim(worker(), merged("m1"))
        await expire_lease(connection)
    assert isinstance(await begin(turns, merged("m2")), Dead)
    assert {letter.message_id for letter in await turns.dead_letters()} == {"m1", "m2"}


@pytest.mark.parametrize(
    "between",
    [message("m2"), merged("m2", values={"wa": 2})],
    ids=["waits", "has another context"],
)
async def test_a_message_that_cannot_be_merged_stands_between_those_that_can(
    turns: Turns, between: IncomingMessage
) -> None:
    await in_queue(turns, merged("m1"), between, merged("m3"))
    answered = []
    for _ in range(3):
        for one in (merged("m1"), between, merged("m3")):
            turn = await begin(turns, one)
            if isinstance(turn, OpenTurn):
                answered.append(ids(turn))
                await turns.commit(turn, record(turn))
    assert answered == [["m1"], ["m2"], ["m3"]]


async def test_equal_contexts_are_merged_whatever_their_order(turns: Turns) -> None:
    await in_queue(turns, merged("m1", values={"a": 1, "b": [1, 2]}), merged("m2", values={"b": [1, 2], "a": 1}))
    turn = await claim(turns, merged("m1"))
    assert (ids(turn), turn.values) == (["m1", "m2"], {"a": 1, "b": [1, 2]})


async def test_a_message_whose_waiter_has_gone_is_not_merged(turns: Turns, connection: Connection) -> None:
    await in_queue(turns, merged("m1"), merged("m2"), merged("m3"))
    await expire_waiter(connection, "m2")
    assert ids(await claim(turns, merged("m1"))) == ["m1", "m3"]


async def test_answers_to_interrupts_are_never_merged(turns: Turns) -> None:
    first = merged("m1", resume=Resume(interrupt_id="i", value=1))
    second = merged("m2", resume=Resume(interrupt_id="i", value=1))
    await in_queue_after_a_question(turns, first, second)
    assert ids(await claim(turns, first)) == ["m1"]


async def test_an_answer_to_an_interrupt_stands_between_messages_that_can_be_merged(turns: Turns) -> None:
    between = merged("m2", resume=Resume(interrupt_id="i", value=1))
    await in_queue_after_a_question(turns, merged("m1"), between, merged("m3"))
    assert ids(await answer(turns, merged("m1"))) == ["m1"]
    assert ids(await claim(turns, merged("m3"))) == ["m3"]
    assert isinstance(await begin(turns, between), StaleResume)
