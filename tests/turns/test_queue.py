"""The queue of a device: in order of arrival, fair between workers, and nobody waits for a caller that has gone."""

import asyncio
import re
from itertools import groupby, pairwise
from typing import get_args
from uuid import uuid4

import pytest

from moorline_checkpoint.messages import POLICIES, BusyPolicy, OnBusy
from moorline_checkpoint.queue import Busy, Replayed, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import LEASE_SECONDS, Turns
from moorline_migrations.errors import ConfigurationError

from .claims import Connection, answer, begin, claim, expire_lease, expire_waiter, ids, message, record, statuses
from .conftest import Workers

RUNNING_TURNS = 8
"""How many turns in a row a worker may take while another one waits."""


async def test_messages_are_claimed_in_the_order_of_their_arrival(turns: Turns, worker: Workers) -> None:
    running = await claim(turns, message("m0"))
    other = worker()
    asking = [(other if number % 2 else turns, message(f"m{number}")) for number in range(1, 7)]
    for asker, waiting in asking:
        assert await begin(asker, waiting) == Waiting()
    await turns.commit(running, record(running))

    answered = []
    for _ in asking:
        # All ask, the last one first; only the first in order is let in.
        found = [(asker, await begin(asker, waiting)) for asker, waiting in reversed(asking)]
        [(asker, turn)] = [(asker, turn) for asker, turn in found if isinstance(turn, OpenTurn)]
        answered.extend(ids(turn))
        await asker.commit(turn, record(turn))
        asking = [one for one in asking if one[1].message_id not in answered]
    assert answered == ["m1", "m2", "m3", "m4", "m5", "m6"]


async def test_no_worker_takes_more_than_eight_turns_running_while_another_waits(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    other = worker()
    first = await claim(turns, message("m0"))
    ours = [message(f"ours {number}") for number in range(20)]
    theirs = [message(f"theirs {number}") for number in range(12)]
    for waiting in ours:
        await begin(turns, waiting)
    for waiting in theirs:
        await begin(other, waiting)
    await turns.commit(first, record(first))

    order = ["ours"]
    asking = [(turns, waiting) for waiting in ours] + [(other, waiting) for waiting in theirs]
    while asking:
        for asker, waiting in asking:
            turn = await begin(asker, waiting)
            if isinstance(turn, OpenTurn):
                await asker.commit(turn, record(turn))
                order.append(waiting.message_id.split()[0])
                asking.remove((asker, waiting))
                break
    blocks = [(name, len(list(turns_of))) for name, turns_of in groupby(order)]
    # By arrival all of theirs come last; one of them is let in after every eight of ours.
    assert blocks == [("ours", 8), ("theirs", 1), ("ours", 8), ("theirs", 1), ("ours", 5), ("theirs", 10)]
    texts = [entry.texts[0] for entry in await turns.transcript("d1")]
    assert [text for text in texts if text.startswith("ours")] == [waiting.text for waiting in ours]
    assert [text for text in texts if text.startswith("theirs")] == [waiting.text for waiting in theirs]


async def test_a_worker_that_is_alone_is_not_held_up(turns: Turns) -> None:
    for number in range(2 * RUNNING_TURNS + 1):
        await answer(turns, message(f"m{number}"))
    assert len(await turns.transcript("d1")) == 2 * RUNNING_TURNS + 1


async def test_a_message_whose_waiter_has_gone_is_passed_over_and_stays(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    running = await claim(turns, message("m1"))
    await begin(worker(), message("m2"))
    await begin(turns, message("m3"))
    await turns.commit(running, record(running))
    assert await begin(turns, message("m3")) == Waiting()
    await expire_waiter(connection, "m2")

    assert ids(await claim(turns, message("m3"))) == ["m3"]
    assert await statuses(connection) == {"m1": ("done", 1), "m2": ("waiting", 0), "m3": ("running", 1)}


async def test_a_delivery_that_comes_again_has_its_old_place(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    running = await claim(turns, message("m1"))
    await begin(worker(), message("m2"))
    await begin(turns, message("m3"))
    await expire_waiter(connection, "m2")
    await begin(worker(), message("m2"))
    await turns.commit(running, record(running))
    assert await begin(turns, message("m3")) == Waiting()
    assert ids(await claim(turns, message("m2"))) == ["m2"]


async def test_asking_again_keeps_the_place(turns: Turns, connection: Connection) -> None:
    running = await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    await expire_waiter(connection, "m2")
    await begin(turns, message("m2"))
    await turns.commit(running, record(running))
    assert await begin(turns, message("m3")) == Waiting()


async def test_a_withdrawal_gives_the_place_up_at_once(turns: Turns, connection: Connection) -> None:
    running = await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    await begin(turns, message("m3"))
    await turns.withdraw(message("m2"), claim_id=uuid4())
    await turns.commit(running, record(running))
    assert ids(await claim(turns, message("m3"))) == ["m3"]


async def test_a_withdrawal_leaves_turns_that_run_or_are_over_alone(turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m1"))
    await claim(turns, message("m2"))
    before = await statuses(connection)
    await turns.withdraw(message("m1"), claim_id=uuid4())
    await turns.withdraw(message("m2"), claim_id=uuid4())
    assert await statuses(connection) == before


async def test_a_busy_device_rejects_a_caller_that_does_not_wait_and_stores_nothing(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    running = await claim(turns, message("m1"))
    assert isinstance(await begin(worker(), message("m2", on_busy="reject")), Busy)
    assert list(await statuses(connection)) == ["m1"]
    await turns.commit(running, record(running))
    assert isinstance(await begin(turns, message("m2", on_busy="reject")), OpenTurn)


async def test_a_device_whose_row_is_locked_rejects_at_once_a_caller_that_does_not_wait(
    turns: Turns, worker: Workers, connection: Connection
) -> None:
    running = await claim(turns, message("m1"))
    async with turns.transaction(running):  # as a tool does
        async with asyncio.timeout(2):
            assert isinstance(await begin(worker(), message("m2", on_busy="reject")), Busy)
    assert list(await statuses(connection)) == ["m1"]


async def test_a_message_that_was_answered_or_waits_is_not_refused_because_its_row_is_held(
    dsn: str, turns: Turns, worker: Workers, connection: Connection
) -> None:
    await answer(turns, message("m0"))
    running = await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    async with turns.transaction(running):
        asking = [asyncio.create_task(begin(worker(), message(f"m{n}", on_busy="reject"))) for n in range(3)]
        await asyncio.wait(asking, timeout=0.3)
        assert not any(one.done() for one in asking)
    replayed, *waiting = await asyncio.gather(*asking)
    assert isinstance(replayed, Replayed)
    assert waiting == [Waiting(), Waiting()]


async def test_a_policy_that_the_schema_does_not_know_is_refused_with_its_name(
    turns: Turns, connection: Connection
) -> None:
    with pytest.raises(ConfigurationError, match=r"no policy jump.*wait, reject or merge"):
        await begin(turns, message(on_busy="jump"))  # type: ignore[arg-type]  # that is what it tests
    assert await statuses(connection) == {}


async def test_the_policies_are_the_same_here_and_in_the_schema(connection: Connection) -> None:
    source = await connection.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'moorline_claim_2'")
    rows = re.findall(r"\('(\w+)', (true|false), (true|false), (true|false)\)", source)
    stored = {
        name: BusyPolicy(waits=waits == "true", rejects=rejects == "true", merges=merges == "true")
        for name, waits, rejects, merges in rows
    }
    assert stored == POLICIES
    assert set(POLICIES) == set(get_args(OnBusy))


async def took(connection: Connection, *seconds: float) -> None:
    """Makes the device's last turns have taken these times, newest first."""
    for number, each in enumerate(seconds):
        await connection.execute(
            "UPDATE conversation_turns SET started_at = committed_at - $2::float8 * interval '1 second'"
            " WHERE turn_no = (SELECT last_turn_no FROM conversation_states) - $1::integer",
            number,
            each,
        )


async def runs_since(connection: Connection, seconds: float) -> None:
    """Makes the open turn have been claimed so long ago."""
    await connection.execute(
        "UPDATE conversation_states SET claimed_at = clock_timestamp() - $1::float8 * interval '1 second'", seconds
    )


async def retry_after(turns: Turns) -> float:
    busy = await begin(turns, message("refused", on_busy="reject"))
    assert isinstance(busy, Busy)
    return busy.retry_after


async def test_a_rejected_caller_is_told_when_the_turn_will_probably_be_over(
    turns: Turns, connection: Connection
) -> None:
    for number in range(7):
        await answer(turns, message(f"m{number}"))
    await took(connection, 2, 3, 4, 5, 6, 1000, 1000)  # the last five count
    await claim(turns, message("running"))
    assert 3.5 < await retry_after(turns) <= 4
    await runs_since(connection, 1.5)
    assert 2 < await retry_after(turns) <= 2.5
    await runs_since(connection, 60)
    assert await retry_after(turns) == 0.5
    await took(connection, 1000, 1000, 1000, 1000, 1000)
    await runs_since(connection, 0)
    assert LEASE_SECONDS - 5 < await retry_after(turns) <= LEASE_SECONDS


async def test_a_caller_rejected_by_a_new_device_is_told_three_seconds(turns: Turns) -> None:
    await claim(turns, message("m1"))
    assert 2 < await retry_after(turns) <= 3


async def test_a_device_with_a_queue_rejects_a_caller_that_does_not_wait(turns: Turns, connection: Connection) -> None:
    running = await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    await turns.commit(running, record(running))
    assert isinstance(await begin(turns, message("m3", on_busy="reject")), Busy)
    assert list(await statuses(connection)) == ["m1", "m2"]


@pytest.mark.parametrize("busy", [True, False])
async def test_a_message_that_comes_again_and_would_not_wait_is_refused_like_a_new_one(
    turns: Turns, connection: Connection, busy: bool
) -> None:
    await turns.release(await claim(turns, message("m1")), notify="m1", failure="AgentError", give_back=False)
    running = await claim(turns, message("m0"))
    await begin(turns, message("m2"))
    if not busy:
        await turns.commit(running, record(running))
        await connection.execute("UPDATE conversation_messages SET arrival = 9 WHERE message_id = 'm1'")
    assert isinstance(await begin(turns, message("m1", on_busy="reject")), Busy)
    assert (await statuses(connection))["m1"] == ("waiting", 1)
    assert not await connection.fetchval(
        "SELECT waiter_until > now() FROM conversation_messages WHERE message_id = 'm1'"
    )


async def test_even_reject_waits_for_its_own_message_that_runs(turns: Turns, worker: Workers) -> None:
    await claim(turns, message("m1"))
    assert await begin(worker(), message("m1", on_busy="reject")) == Waiting()


async def test_even_reject_waits_for_its_own_message_that_waits(turns: Turns, worker: Workers) -> None:
    await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    assert await begin(worker(), message("m2", on_busy="reject")) == Waiting()


async def test_devices_do_not_wait_for_each_other(turns: Turns) -> None:
    await claim(turns, message(device="d1"))
    assert (await answer(turns, message(device="d2"))).turn_no == 1


@pytest.mark.parametrize("devices", [1, 10])
async def test_many_workers_at_once_answer_every_message_once(
    worker: Workers, connection: Connection, devices: int
) -> None:
    async def deliver(turns: Turns, device: str, number: int) -> None:
        while True:
            turn = await begin(turns, message(f"m{number}", device=device))
            if isinstance(turn, OpenTurn):
                await turns.commit(turn, record(turn, turn.messages[0].text))
                if turn.messages[0].id == f"m{number}":
                    return
            else:
                await asyncio.sleep(0.01)

    workers = [worker() for _ in range(4)]
    await asyncio.gather(*(deliver(workers[number % 4], f"d{number % devices}", number) for number in range(40)))
    for device in range(devices):
        transcript = await workers[0].transcript(f"d{device}")
        assert [entry.record.turn_no for entry in transcript] == list(range(1, 40 // devices + 1))
        assert sorted(entry.texts for entry in transcript) == sorted((entry.record.reply,) for entry in transcript)
        assert all(earlier.committed_at <= later.started_at for earlier, later in pairwise(transcript))


async def test_a_crashed_device_in_a_queue_goes_on(turns: Turns, worker: Workers, connection: Connection) -> None:
    await claim(worker(), message("m1"))
    await begin(turns, message("m2"))
    assert await begin(turns, message("m2")) == Waiting()
    await expire_lease(connection)
    left = await claim(turns, message("m2"))
    assert ids(left) == ["m1"]
