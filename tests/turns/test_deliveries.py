"""A message is answered once, however often, wherever and together with whatever it is delivered."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from moorline import Moorline, Resume, Settings
from moorline.errors import AgentError, SessionBusy, StaleTurn, TurnTimeout
from moorline.testing import Script, error_reply
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.transport import ModelReply, ModelRequest
from moorline_checkpoint.turns import MAX_ATTEMPTS

from .claims import Connection, expire_lease, statuses
from .runtimes import Stall, in_queue, obedient, runtime, say


@pytest.fixture
def model() -> Script:
    return Script(rules=obedient)


@pytest.fixture
async def moorline(dsn: str, model: Script) -> AsyncIterator[Moorline]:
    async with runtime(dsn, model) as moorline:
        yield moorline


@pytest.fixture
async def other(dsn: str, model: Script) -> AsyncIterator[Moorline]:
    """The runtime of another worker."""
    async with runtime(dsn, model) as other:
        yield other


async def texts(moorline: Moorline) -> list[tuple[str, ...]]:
    return [entry.texts for entry in await moorline.transcript("d1")]


async def test_five_deliveries_at_once_in_two_workers_are_one_turn(
    moorline: Moorline, other: Moorline, model: Script
) -> None:
    replies = await asyncio.gather(
        *(say(worker, "hello", "m1") for worker in (moorline, other, moorline, other, other))
    )
    assert set(replies) == {"1: hello"}
    assert sorted(reply.replayed for reply in replies) == [False, True, True, True, True]
    assert {reply.turn_no for reply in replies} == {1}
    assert len(model.requests) == 1


@pytest.mark.parametrize("on_busy", ["wait", "reject", "merge"])
async def test_a_duplicate_of_a_message_that_runs_waits_for_its_reply(
    dsn: str, moorline: Moorline, on_busy: str
) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m1"))
        await stall.reached.wait()
        duplicates = [asyncio.create_task(say(worker, "hello", "m1", on_busy=on_busy)) for worker in (first, moorline)]
        await asyncio.sleep(0.2)
        assert not any(duplicate.done() for duplicate in duplicates)
        stall.go_on.set()
        assert await asyncio.gather(running, *duplicates) == ["1: hello"] * 3


async def test_a_duplicate_of_a_message_that_waits_waits_with_it(dsn: str, moorline: Moorline) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m1"))
        await stall.reached.wait()
        waiting = asyncio.create_task(say(first, "next", "m2"))
        await in_queue(dsn, 1)
        duplicates = [asyncio.create_task(say(worker, "next", "m2", on_busy="reject")) for worker in (first, moorline)]
        await asyncio.sleep(0.2)
        stall.go_on.set()
        assert await asyncio.gather(running, waiting, *duplicates) == ["1: hello", *["2: next"] * 3]


async def test_a_message_that_was_answered_is_replayed_and_nothing_runs(
    moorline: Moorline, other: Moorline, model: Script, connection: Connection
) -> None:
    first = await say(moorline, "hello", "m1")
    await say(moorline, "next", "m2")
    await connection.execute("UPDATE conversation_messages SET received_at = now() - interval '2 days'")
    asked = len(model.requests)
    again = await say(other, "hello", "m1")
    assert (again, again.replayed, again.turn_no, again.agent) == (first, True, 1, "desk")
    assert len(model.requests) == asked


async def test_another_text_under_the_same_id_gets_the_first_reply_and_is_reported_without_it(
    moorline: Moorline, caplog: pytest.LogCaptureFixture
) -> None:
    first = await say(moorline, "hello", "m1")
    with caplog.at_level(logging.DEBUG):
        assert await say(moorline, "my secret", "m1") == first
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "different text" in warning
    assert "d1" not in warning.split()  # the tag of a device may happen to contain it
    assert "my secret" not in caplog.text
    assert await texts(moorline) == [("hello",)]


async def test_messages_without_an_id_are_their_own(moorline: Moorline) -> None:
    assert [await say(moorline, "hello") for _ in range(3)] == ["1: hello", "2: hello", "3: hello"]


async def test_a_message_that_was_set_aside_is_an_error_and_nothing_runs(
    moorline: Moorline, other: Moorline, model: Script, connection: Connection
) -> None:
    await say(moorline, "hello", "m0")
    await connection.execute(
        "INSERT INTO conversation_messages (device_id, message_id, arrival, text, status, attempts, error)"
        " VALUES ('d1', 'm1', 2, 'poison', 'dead', 3, 'LookupError')"
    )
    asked = len(model.requests)
    for worker in (moorline, other):
        with pytest.raises(AgentError, match=r"set aside \(LookupError\)"):
            await say(worker, "poison", "m1")
    assert len(model.requests) == asked
    assert await say(moorline, "next", "m2") == "2: next"


async def test_a_message_of_an_erased_device_is_new(moorline: Moorline) -> None:
    await say(moorline, "hello", "m1")
    await moorline.erase("d1")
    again = await say(moorline, "hello", "m1")
    assert (again, again.replayed, again.turn_no) == ("1: hello", False, 1)


async def test_a_message_that_fails_every_time_is_set_aside_and_the_device_goes_on(
    dsn: str, connection: Connection
) -> None:
    def failing(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["content"] == "poison":
            raise LookupError
        return obedient(request)

    async with runtime(dsn, failing) as moorline:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            with pytest.raises(AgentError, match="LookupError"):
                await say(moorline, "poison", "m1")
            assert await say(moorline, "next", f"n{attempt}") == f"{attempt}: next"
        with pytest.raises(AgentError, match="set aside"):
            await say(moorline, "poison", "m1")
        assert [(letter.message_id, letter.error) for letter in await moorline.dead_letters()] == [("m1", "AgentError")]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_model_that_fails_for_a_while_costs_a_message_no_attempt(
    dsn: str, connection: Connection, status: int
) -> None:
    script = Script(*[error_reply(status, retry_after_ms=1)] * 3 * (MAX_ATTEMPTS + 1), "at last")
    async with runtime(dsn, script) as moorline:
        for _ in range(MAX_ATTEMPTS + 1):
            with pytest.raises(AgentError, match="model server"):
                await say(moorline, "hello", "m1")
            assert await statuses(connection) == {"m1": ("waiting", 0)}
        assert await say(moorline, "hello", "m1") == "at last"


async def test_a_message_that_takes_too_long_every_time_is_set_aside(dsn: str) -> None:
    async with runtime(dsn, Stall(), turn_timeout=0.3) as moorline:
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises(TurnTimeout):
                await say(moorline, "hello", "m1")
        with pytest.raises(AgentError, match="set aside"):
            await say(moorline, "hello", "m1")


async def test_a_caller_who_allows_too_little_time_costs_a_message_no_attempt(dsn: str, connection: Connection) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as moorline:
        for _ in range(MAX_ATTEMPTS + 1):
            with pytest.raises(TurnTimeout):
                await say(moorline, "hello", "m1", timeout=0.3)
            assert await statuses(connection) == {"m1": ("waiting", 0)}
        stall.go_on.set()
        assert await say(moorline, "hello", "m1") == "1: hello"


async def test_a_busy_device_rejects_a_caller_that_does_not_wait(dsn: str, moorline: Moorline) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m1"))
        await stall.reached.wait()
        for worker in (first, moorline):
            with pytest.raises(SessionBusy) as refused:
                await say(worker, "next", "m2", on_busy="reject")
            assert 0 < refused.value.retry_after <= 15
        stall.go_on.set()
        await running
    assert await say(moorline, "next", "m2", on_busy="reject") == "2: next"


async def test_a_burst_is_merged_into_one_turn_and_each_message_gets_its_reply(
    dsn: str, moorline: Moorline, model: Script
) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m0"))
        await stall.reached.wait()
        burst = []
        for number in range(1, 6):
            worker = (first, moorline)[number % 2]
            burst.append(asyncio.create_task(say(worker, f"t{number}", f"m{number}", on_busy="merge")))
            await in_queue(dsn, number)
        stall.go_on.set()
        replies = await asyncio.gather(*burst)
        assert await running == "1: hello"
        assert {(str(reply), reply.turn_no) for reply in replies} == {("6: t5", 2)}
        assert sorted(reply.replayed for reply in replies) == [False, *[True] * 4]
    assert await texts(moorline) == [("hello",), ("t1", "t2", "t3", "t4", "t5")]
    assert await say(moorline, "t3", "m3") == "6: t5"


async def test_messages_of_different_contexts_are_not_merged(dsn: str, moorline: Moorline) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m0"))
        await stall.reached.wait()
        burst = []
        for number, page in enumerate(("prices", "prices", "hours", "prices"), start=1):
            burst.append(asyncio.create_task(say(moorline, f"t{number}", on_busy="merge", page=page)))
            await in_queue(dsn, number)
        stall.go_on.set()
        await asyncio.gather(running, *burst)
    assert await texts(moorline) == [("hello",), ("t1", "t2"), ("t3",), ("t4",)]


async def test_an_answer_to_an_interrupt_delivered_everywhere_at_once_is_one_turn(dsn: str) -> None:
    def ask(state: MessagesState) -> dict[str, object]:
        return {"messages": [("assistant", f"you said {interrupt('really?')}")]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    agents = [GraphAgent(name="ask", description="asks", graph=graph)]
    async with (
        Moorline(Settings(database_url=dsn), agents=agents) as one,
        Moorline(Settings(database_url=dsn), agents=agents) as two,
    ):
        question = await say(one, "hello", "m1")
        assert (question, question.replayed) == ("really?", False)
        again = await say(two, "hello", "m1")
        assert (again, again.replayed, again.interrupt) == ("really?", True, question.interrupt)
        assert question.interrupt is not None
        answer = Resume(interrupt_id=question.interrupt.id, value="yes")
        replies = await asyncio.gather(*[worker.run(answer, {"device_id": "d1"}) for worker in (one, two) * 3])
        assert {(str(reply), reply.turn_no) for reply in replies} == {("you said yes", 2)}
        assert sorted(reply.replayed for reply in replies) == [False, *[True] * 5]


async def test_messages_of_one_worker_are_answered_in_the_order_of_their_calls(moorline: Moorline) -> None:
    await asyncio.gather(*(say(moorline, f"t{number}") for number in range(30)))
    assert await texts(moorline) == [(f"t{number}",) for number in range(30)]


async def test_neither_of_two_workers_takes_more_than_eight_turns_running_while_the_other_waits(
    dsn: str, moorline: Moorline, other: Moorline
) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello"))
        await stall.reached.wait()
        ours = [asyncio.create_task(say(moorline, f"ours {number}")) for number in range(25)]
        await in_queue(dsn, 25)
        theirs = [asyncio.create_task(say(other, f"theirs {number}")) for number in range(25)]
        await in_queue(dsn, 50)
        stall.go_on.set()
        await asyncio.gather(running, *ours, *theirs)
    said = [text for (text,) in await texts(moorline)][1:]
    assert [text for text in said if text.startswith("ours")] == [f"ours {number}" for number in range(25)]
    assert [text for text in said if text.startswith("theirs")] == [f"theirs {number}" for number in range(25)]
    last_of_ours = said.index("ours 24")
    for start in range(last_of_ours - 8):
        assert any(text.startswith("theirs") for text in said[start : start + 9])


async def test_a_caller_that_gives_up_waiting_holds_nobody_up(
    dsn: str, moorline: Moorline, connection: Connection
) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        running = asyncio.create_task(say(first, "hello", "m1"))
        await stall.reached.wait()
        with pytest.raises(TurnTimeout):
            await say(moorline, "impatient", "m2", timeout=0.3)
        cancelled = asyncio.create_task(say(moorline, "gone", "m3"))
        await in_queue(dsn, 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        stall.go_on.set()
        await running
        async with asyncio.timeout(5):  # they would keep their places for 15 s
            assert await say(first, "next", "m4") == "2: next"
        assert await statuses(connection) == {"m1": ("done", 1), "m4": ("done", 1)}
        assert await say(moorline, "impatient", "m2") == "3: impatient"


async def test_a_message_sent_again_with_an_early_place_is_answered_at_once(dsn: str) -> None:
    """Its place in the queue is earlier than its call's place among the calls that wait in this process."""
    stall = Stall(lambda request: request.messages[-1]["content"] == "first")

    def failing_once(request: ModelRequest) -> object:
        if request.messages[-1]["content"] == "again" and not failed:
            failed.append(True)
            raise LookupError
        return stall(request)

    failed: list[bool] = []
    async with runtime(dsn, failing_once) as moorline:  # type: ignore[arg-type]  # stall's result is a reply
        with pytest.raises(AgentError):
            await say(moorline, "again", "m1")
        running = asyncio.create_task(say(moorline, "first", "m2"))
        await stall.reached.wait()
        waiting = asyncio.create_task(say(moorline, "second", "m3"))
        await in_queue(dsn, 1)
        again = asyncio.create_task(say(moorline, "again", "m1"))
        await in_queue(dsn, 2)
        stall.go_on.set()
        async with asyncio.timeout(3):  # calls that are not the first ask only every 5 s
            replies = await asyncio.gather(running, again, waiting)
        assert list(map(str, replies)) == ["1: first", "2: again", "3: second"]


async def test_a_call_that_crashed_elsewhere_is_answered_by_its_next_delivery(
    dsn: str, moorline: Moorline, connection: Connection
) -> None:
    stall = Stall()
    async with runtime(dsn, stall) as first:
        crashed = asyncio.create_task(say(first, "hello", "m1"))
        await stall.reached.wait()
        await expire_lease(connection)
        reply = await say(moorline, "hello", "m1")
        assert (reply, reply.replayed, reply.recovered) == ("1: hello", False, ())
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await crashed
