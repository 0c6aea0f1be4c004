"""While a release rolls out, processes of two versions work on one schema: each takes over what the other left."""

import json
from typing import Any
from uuid import UUID, uuid4

from moorline_checkpoint.queue import Replayed, Waiting
from moorline_checkpoint.turns import Turns

from .claims import Connection, answer, begin, claim, expire_lease, ids, message, record


class Older:
    """A process of the version before, by the functions that it calls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def begin(self, message_id: str, claim_id: UUID | None = None) -> dict[str, Any]:
        found = await self._connection.fetchval(
            "SELECT answer FROM moorline_begin_1('d1', $1, $2, 'older', $1, NULL, '{}', 'wait', 60, 15, 15, 3, '{}')",
            message_id,
            claim_id or uuid4(),
        )
        return dict(json.loads(found))

    async def commit(self, claim_id: UUID, begun: dict[str, Any], reply: str = "older") -> bool:
        outcome = {
            "turn_no": begun["turn_no"],
            "status": "done",
            "agent": None,
            "reply": reply,
            "handoffs": [],
            "usage": {},
            "interrupt": None,
            "attempts": begun["attempts"],
            "started_at": begun["now"],
            "active_agent": None,
            "lock_taken": False,
            "session_ttl": None,
            "heads": begun["heads"],
        }
        nothing = ", ".join(["'{}'"] * 20)
        return bool(
            await self._connection.fetchval(
                f"SELECT moorline_commit_1('d1', $1, $2, $3, {nothing})",
                claim_id,
                begun["fence"],
                json.dumps(outcome),
            )
        )

    async def release(self, claim_id: UUID, fence: int) -> None:
        await self._connection.execute(
            "SELECT moorline_release_1('d1', $1, $2, 'm1', false, 'AgentError', 3)", claim_id, fence
        )


async def test_turns_of_both_follow_each_other(turns: Turns, connection: Connection) -> None:
    older = Older(connection)
    for number in range(1, 7):
        if number % 2:
            claim_id = uuid4()
            begun = await older.begin(f"m{number}", claim_id)
            assert begun["turn_no"] == number
            assert await begin(turns, message(f"m{number + 1}")) == Waiting()
            assert await older.commit(claim_id, begun)
        else:
            assert (await answer(turns, message(f"m{number}"))).turn_no == number
    assert [entry.record.turn_no for entry in await turns.transcript("d1")] == [1, 2, 3, 4, 5, 6]
    assert (await older.begin("m2"))["outcome"] == "replayed"
    assert isinstance(await begin(turns, message("m1")), Replayed)


async def test_a_newer_process_finishes_what_an_older_one_left(turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m0"))
    older = Older(connection)
    claim_id = uuid4()
    begun = await older.begin("m1", claim_id)
    assert await begin(turns, message("m2")) == Waiting()
    await expire_lease(connection)
    recovered = await claim(turns, message("m2"))
    assert (ids(recovered), recovered.attempts) == (["m1"], 2)
    assert not await older.commit(claim_id, begun)
    await turns.commit(recovered, record(recovered))
    assert ids(await answer(turns, message("m2"))) == ["m2"]


async def test_an_older_process_finishes_what_a_newer_one_left(turns: Turns, connection: Connection) -> None:
    await answer(turns, message("m0"))
    turn = await claim(turns, message("m1"))
    await expire_lease(connection)
    older, claim_id = Older(connection), uuid4()
    recovered = await older.begin("m2", claim_id)
    assert [one["id"] for one in recovered["messages"]] == ["m1"]
    assert await older.commit(claim_id, recovered)
    assert (await turns.heartbeat(turn)) is False
    assert ids(await answer(turns, message("m2"))) == ["m2"]


async def test_what_an_older_process_released_is_taken_up_again(turns: Turns, connection: Connection) -> None:
    older, claim_id = Older(connection), uuid4()
    begun = await older.begin("m1", claim_id)
    await older.release(claim_id, begun["fence"])
    again = await claim(turns, message("m1"))
    assert (ids(again), again.attempts) == (["m1"], 2)


async def test_a_newer_process_that_crashed_after_an_older_one_committed_leaves_its_own_messages(
    turns: Turns, connection: Connection
) -> None:
    await claim(turns, message("m1"))
    await expire_lease(connection)
    older, claim_id = Older(connection), uuid4()
    assert await older.commit(claim_id, await older.begin("m1", claim_id))
    # The older process did not know that the row names the open messages; the name of m1 is still there.
    begun = await older.begin("m2")
    assert begun["outcome"] == "claimed"
    await expire_lease(connection)
    recovered = await claim(turns, message("m3"))
    assert ids(recovered) == ["m2"]
    await turns.release(recovered, notify=None, failure="AgentError", give_back=False)
    assert ids(await claim(turns, message("m2"))) == ["m2"]
