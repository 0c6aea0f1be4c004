"""An answer to an interrupt that waits for none is refused by Begin: nothing is stored, and no attempt is used."""

from uuid import uuid4

import pytest

from moorline_checkpoint.messages import IncomingMessage, OnBusy, Resume
from moorline_checkpoint.queue import Replayed, StaleResume, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import MAX_ATTEMPTS, Turns

from .claims import Connection, answer, begin, claim, expire_lease, expire_waiter, ids, message, record, statuses
from .conftest import Workers


def resume(message_id: str = "r1", interrupt_id: str = "i", on_busy: OnBusy = "wait") -> IncomingMessage:
    """An answer to an interrupt."""
    return message(message_id, text="", resume=Resume(interrupt_id=interrupt_id, value=1), on_busy=on_busy)


async def ask(turns: Turns, interrupt_id: str = "i", message_id: str = "m0") -> None:
    """A turn that ends with a question."""
    turn = await claim(turns, message(message_id))
    await turns.commit(turn, record(turn, interrupt={"id": interrupt_id, "value": "which?"}))


async def refused(turns: Turns, incoming: IncomingMessage) -> None:
    assert await begin(turns, incoming) == StaleResume(resume=incoming.resume)  # type: ignore[arg-type]  # has one


async def test_the_answer_to_the_last_question_is_a_turn(turns: Turns, connection: Connection) -> None:
    await ask(turns)
    turn = await claim(turns, resume())
    assert turn.resume == Resume(interrupt_id="i", value=1)
    await turns.commit(turn, record(turn))
    assert isinstance(await begin(turns, resume()), Replayed)
    assert isinstance(await begin(turns, resume(interrupt_id="other")), Replayed)


async def test_an_answer_to_nothing_leaves_no_row(turns: Turns, connection: Connection) -> None:
    await refused(turns, resume())
    assert await connection.fetchval("SELECT count(*) FROM conversation_states") == 0
    await answer(turns, message("m0"))
    for on_busy in ("wait", "reject", "merge"):
        await refused(turns, resume(on_busy=on_busy))
    assert await statuses(connection) == {"m0": ("done", 1)}
    assert (await answer(turns, message("m1"))).turn_no == 2


async def test_only_the_last_question_can_be_answered_and_only_once(turns: Turns, connection: Connection) -> None:
    await ask(turns, "i")
    await refused(turns, resume("r1", "other"))
    await ask(turns, "j", "m1")
    await refused(turns, resume("r1", "i"))
    await answer(turns, resume("r2", "j"))
    await refused(turns, resume("r3", "j"))
    assert list(await statuses(connection)) == ["m0", "m1", "r2"]


async def test_it_is_refused_at_once_while_another_turn_runs(turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m0"))
    await claim(turns, message("m1"))
    await refused(turns, resume())
    assert list(await statuses(connection)) == ["m0", "m1"]


async def test_one_that_waits_while_its_question_is_answered_goes_when_its_turn_comes(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await ask(turns)
    first = await claim(turns, resume("r1"))
    assert await begin(worker(), resume("r2")) == Waiting()
    assert await begin(turns, message("m1")) == Waiting()
    await turns.commit(first, record(first))

    assert ids(await claim(turns, message("m1"))) == ["m1"]
    assert list(await statuses(connection)) == ["m0", "r1", "m1"]
    await refused(worker(), resume("r2"))


async def test_one_that_waits_is_refused_as_soon_as_it_asks_again(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await ask(turns)
    first = await claim(turns, resume("r1"))
    assert await begin(worker(), resume("r2")) == Waiting()
    await turns.commit(first, record(first))
    await claim(turns, message("m1", on_busy="reject"))
    await refused(worker(), resume("r2"))
    assert list(await statuses(connection)) == ["m0", "r1", "m1"]


async def test_one_that_was_left_by_a_process_that_died_goes_too(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    await ask(turns)
    first = await claim(turns, resume("r1"))
    assert await begin(worker(), resume("r2")) == Waiting()
    await expire_waiter(connection, "r2")
    await turns.commit(first, record(first))
    assert await turns.orphaned() == ["d1"]
    assert await turns.begin_orphaned("d1") is None
    assert list(await statuses(connection)) == ["m0", "r1"]
    assert await turns.orphaned() == []


async def test_one_that_failed_can_be_sent_again_until_the_conversation_goes_on(
    turns: Turns, connection: Connection
) -> None:
    await ask(turns)
    await turns.release(await claim(turns, resume()), notify="r1", failure="AgentError", give_back=False)
    again = await claim(turns, resume())
    assert again.attempts == 2
    await turns.release(again, notify="r1", failure="AgentError", give_back=False)
    await answer(turns, message("m1"))
    await refused(turns, resume())
    assert list(await statuses(connection)) == ["m0", "m1"]


async def test_one_whose_process_crashed_is_finished(turns: Turns, worker: Workers, connection: Connection) -> None:
    await ask(turns)
    await claim(worker(), resume())
    await expire_lease(connection)
    left = await claim(turns, message("m1"))
    assert (ids(left), left.resume) == (["r1"], Resume(interrupt_id="i", value=1))


async def test_one_that_was_set_aside_is_refused_when_it_is_tried_again_too_late(
    turns: Turns, connection: Connection
) -> None:
    await ask(turns)
    for _ in range(MAX_ATTEMPTS):
        await turns.release(await claim(turns, resume()), notify="r1", failure="AgentError", give_back=False)
    await answer(turns, message("m1"))
    requeued = await turns.requeue("d1", "r1")
    assert requeued == resume()
    await refused(turns, requeued)


async def test_a_release_can_leave_no_row(turns: Turns, connection: Connection) -> None:
    await ask(turns)
    turn = await claim(turns, resume())
    await turns.release(turn, notify="r1", failure="InvalidMessage", give_back=False, forget=True)
    assert list(await statuses(connection)) == ["m0"]
    assert isinstance(await begin(turns, message("m1"), uuid4()), OpenTurn)


@pytest.mark.parametrize("interrupt_id", ["i\0", "\ud800", "'", ""])
async def test_any_text_may_name_an_interrupt(turns: Turns, interrupt_id: str) -> None:
    await ask(turns, interrupt_id)
    assert (await answer(turns, resume(interrupt_id=interrupt_id))).turn_no == 2
