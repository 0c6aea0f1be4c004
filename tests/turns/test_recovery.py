"""What a crashed process left behind is finished by the next claim, before anything else, and is invisible until then.

A crash is simulated: a process stops before it commits, and its lease is ended.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from moorline import Moorline, Reply, Resume, Settings, Texts, execution
from moorline.errors import AgentError, InternalError, StaleTurn, StateDamaged
from moorline.testing import Script, error_reply
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.transport import ModelReply, ModelRequest
from moorline_checkpoint.queue import Waiting
from moorline_checkpoint.turns import MAX_ATTEMPTS, Turns

from .claims import Connection, begin, claim, expire_lease, expire_waiter, ids, message, record, statuses
from .conftest import Workers
from .runtimes import Stall, crashed, execute, obedient, runtime, say

Crash = Callable[..., object]


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is taken for dead does not renew its lease."""
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[AsyncExitStack]:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with AsyncExitStack() as stack:
        yield stack


async def test_the_next_delivery_finishes_a_crashed_turn(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1")
    async with runtime(dsn) as moorline:
        reply = await say(moorline, "book table", "m1")
        assert (reply, reply.replayed, reply.turn_no, reply.recovered) == ("1: table", False, 1, ())


async def test_the_next_message_finishes_a_crashed_turn_first_and_brings_its_reply(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1")
    async with runtime(dsn) as moorline:
        reply = await say(moorline, "next", "m2")
        assert (reply, reply.turn_no) == ("2: next", 2)
        assert [(str(earlier), earlier.turn_no, earlier.agent) for earlier in reply.recovered] == [
            ("1: table", 1, "desk")
        ]
        assert (await say(moorline, "book table", "m1")).replayed


async def test_a_turn_that_was_finished_first_has_a_claim_of_its_own(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1")
    async with runtime(dsn) as moorline:
        await say(moorline, "next", "m2")
    assert await connection.fetchval("SELECT count(DISTINCT claim_id) FROM conversation_turns") == 2


async def test_whatever_takes_charge_of_a_reply_and_fails_does_not_leave_raw(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1")
    unforeseen = KeyError("nobody")

    def fail(device: str, reply: Reply) -> None:
        raise unforeseen

    async with runtime(dsn, on_recovered=fail) as moorline:
        with pytest.raises(InternalError, match="KeyError") as raised:
            await say(moorline, "next", "m2")
        assert raised.value.__cause__ is unforeseen
        assert await say(moorline, "next", "m2") == "2: next"


async def test_a_reply_that_somebody_takes_charge_of_is_not_brought(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1")
    taken: list[tuple[str, str]] = []
    async with runtime(dsn, on_recovered=lambda device, reply: taken.append((device, str(reply)))) as moorline:
        assert (await say(moorline, "next", "m2")).recovered == ()
    assert taken == [("d1", "1: table")]


async def test_recovery_finishes_what_all_devices_have_left(
    stack: AsyncExitStack, dsn: str, connection: Connection, worker: Workers
) -> None:
    for device in ("d1", "d2", "d3"):
        await claim(worker(), message(device=device, text="book table"))
    for device in ("d1", "d3"):
        await expire_lease(connection, device)
    taken: list[tuple[str, str]] = []

    def take(device: str, reply: Reply) -> None:
        taken.append((device, str(reply)))

    async with runtime(dsn, on_recovered=take) as one, runtime(dsn, on_recovered=take) as other:
        assert sum(await asyncio.gather(one.recover(), other.recover())) == 2
        assert sorted(taken) == [("d1", "1: table"), ("d3", "1: table")]
        assert await one.recover() == 0
    assert len(await execute(dsn, "SELECT FROM bookings")) == 2


async def test_a_message_that_waited_in_a_crashed_process_is_recovered(
    dsn: str, connection: Connection, turns: Turns, worker: Workers, stack: AsyncExitStack
) -> None:
    await claim(worker(), message("m1"))
    await turns.begin(message("m2"), claim_id=(await claim(worker(), message(device="d2"))).claim_id)
    await expire_lease(connection)
    await connection.execute("UPDATE conversation_messages SET waiter_until = now() WHERE message_id = 'm2'")
    async with runtime(dsn) as moorline:
        assert await moorline.recover() == 2
        assert [entry.texts for entry in await moorline.transcript("d1")] == [("m1",), ("m2",)]


async def test_what_a_crashed_process_left_does_not_pass_a_message_that_somebody_waits_with(
    connection: Connection, turns: Turns, worker: Workers
) -> None:
    running = await claim(turns, message("m1"))
    for each in ("m2", "m3"):
        assert await begin(worker(), message(each)) == Waiting()
    await turns.commit(running, record(running))
    await expire_waiter(connection, "m3")
    assert await turns.begin_orphaned("d1") is None
    await expire_waiter(connection, "m2")
    for each in ("m2", "m3"):
        left = await turns.begin_orphaned("d1")
        assert left is not None
        assert ids(left) == [each]
        await turns.commit(left, record(left))


async def test_nothing_of_a_crashed_turn_shows_and_no_call_is_left_without_its_result(
    stack: AsyncExitStack, dsn: str, connection: Connection
) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", "m0")
        first = await connection.fetchval("SELECT fence FROM conversation_turns")
        await crashed(stack, dsn, connection, "book table", "m1")
        assert [entry.texts for entry in await moorline.transcript("d1")] == [("hello",)]
        tables = ("conversation_checkpoints", "conversation_values", "conversation_writes", "conversation_turns")
        for table in tables:
            fences = await connection.fetch(f"SELECT DISTINCT fence FROM {table}")  # noqa: S608
            assert {row["fence"] for row in fences} <= {first}

    script = Script(rules=obedient)
    async with runtime(dsn, script) as moorline:
        assert await say(moorline, "next", "m2") == "3: next"
    for request in script.requests:
        calls = [call["id"] for shown in request.messages for call in shown.get("tool_calls", ())]
        results = [shown["tool_call_id"] for shown in request.messages if shown["role"] == "tool"]
        assert calls == results
    assert [shown["role"] for shown in script.requests[-1].messages].count("user") == 3


async def test_a_recovery_that_fails_holds_nobody_up_and_is_tried_again(
    dsn: str, connection: Connection, worker: Workers
) -> None:
    def failing(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["content"] == "poison":
            raise LookupError
        return obedient(request)

    await claim(worker(), message(text="poison"))
    await expire_lease(connection)
    async with runtime(dsn, failing) as moorline:
        reply = await say(moorline, "next", "m2")
        assert (reply, reply.recovered) == ("1: next", ())
        assert await statuses(connection) == {"m1": ("waiting", 2), "m2": ("done", 1)}
        assert await moorline.recover() == 0
        assert (await statuses(connection))["m1"] == ("dead", MAX_ATTEMPTS)
        with pytest.raises(AgentError, match="set aside"):
            await say(moorline, "poison", "m1")


async def test_a_recovery_that_meets_a_failing_model_costs_no_attempt_and_does_not_go_round(
    dsn: str, connection: Connection, worker: Workers
) -> None:
    def failing(request: ModelRequest) -> object:
        return error_reply(500, retry_after_ms=1) if request.messages[-1]["content"] == "m1" else obedient(request)

    await claim(worker(), message())
    await expire_lease(connection)
    async with runtime(dsn, failing, model_retries=0) as moorline:  # type: ignore[arg-type]  # replies of both kinds
        assert await say(moorline, "next", "m2") == "1: next"
        assert await moorline.recover() == 0
        assert (await statuses(connection))["m1"] == ("waiting", 1)
    async with runtime(dsn) as moorline:
        assert await moorline.recover() == 1


async def test_an_answer_that_crashed_and_that_nobody_waits_for_any_more_is_told_so_before_the_next_message(
    dsn: str, connection: Connection, worker: Workers
) -> None:
    """The last turn asked, but its agent has changed since and no longer waits."""
    asked = await claim(worker(), message("m0"))
    await worker().commit(asked, record(asked, interrupt={"id": "gone", "value": "which?"}))
    await claim(worker(), message(resume=Resume(interrupt_id="gone", value=1)))
    await expire_lease(connection)
    async with runtime(dsn) as moorline:
        reply = await say(moorline, "next", "m2")
        assert (reply, [str(earlier) for earlier in reply.recovered]) == ("1: next", [Texts().closed])
    assert list(await statuses(connection)) == ["m0", "m1", "m2"]


async def test_a_recovery_whose_caller_goes_away_is_left_to_the_next_one(
    stack: AsyncExitStack, dsn: str, connection: Connection, worker: Workers
) -> None:
    await claim(worker(), message(text="hello"))
    await expire_lease(connection)
    stall = Stall()
    async with runtime(dsn, stall) as moorline:
        going = asyncio.create_task(say(moorline, "next", "m2"))
        await stall.reached.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    assert await statuses(connection) == {"m1": ("running", 2)}
    async with runtime(dsn) as moorline:
        reply = await say(moorline, "later", "m3")
        assert (reply, [str(earlier) for earlier in reply.recovered]) == ("2: later", ["1: hello"])


async def test_a_turn_that_cuts_every_recovery_short_is_set_aside(
    dsn: str, connection: Connection, worker: Workers
) -> None:
    def stuck(request: ModelRequest) -> object:
        return Stall()(request) if request.messages[-1]["content"] == "stuck" else obedient(request)

    await claim(worker(), message(text="stuck"))
    await expire_lease(connection)
    async with runtime(dsn, stuck) as moorline:  # type: ignore[arg-type]  # replies now and later
        for number in range(MAX_ATTEMPTS - 1):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(say(moorline, "next", f"n{number}"), 0.3)
        assert await say(moorline, "next", "last") == "1: next"
    assert (await statuses(connection))["m1"] == ("dead", MAX_ATTEMPTS)


async def test_a_crashed_answer_to_an_interrupt_does_not_leak_into_the_next_turn(
    dsn: str, connection: Connection, stack: AsyncExitStack
) -> None:
    reached, go_on, stalls = asyncio.Event(), asyncio.Event(), [True]

    async def ask(state: MessagesState) -> dict[str, object]:
        text = str(state["messages"][-1].text)
        if text != "ask":
            return {"messages": [("assistant", f"{len(state['messages'])}: {text}")]}
        said = interrupt("really?")
        if stalls.pop() if stalls else False:
            reached.set()
            await go_on.wait()
        return {"messages": [("assistant", f"you said {said}")]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    agents = [GraphAgent(name="ask", description="asks", graph=graph)]
    async with Moorline(Settings(database_url=dsn), agents=agents) as dying:
        question = (await say(dying, "ask", "m1")).interrupt
        assert question is not None
        answer = Resume(interrupt_id=question.id, value="yes")
        dead = asyncio.create_task(dying.run(answer, {"device_id": "d1"}))
        await reached.wait()
        await expire_lease(connection)
        async with Moorline(Settings(database_url=dsn), agents=agents) as moorline:
            reply = await say(moorline, "ask", "m3")
            assert [str(earlier) for earlier in reply.recovered] == ["you said yes"]
            assert (reply, reply.turn_no) == ("really?", 3)
            assert reply.interrupt is not None
            assert reply.interrupt.id != question.id
            again = await moorline.run(answer, {"device_id": "d1"})
            assert (again, again.replayed) == ("you said yes", True)
            assert await say(moorline, "never mind", "m4") == "4: never mind"
        go_on.set()
        with pytest.raises(StaleTurn):
            await dead


async def orphan(connection: Connection, device: str, values: str = "{}") -> None:
    """A message that waited in a process that is gone."""
    await connection.execute("INSERT INTO conversation_states (device_id, arrivals) VALUES ($1, 1)", device)
    await connection.execute(
        "INSERT INTO conversation_messages (device_id, message_id, arrival, text, status, values, waiter_until)"
        " VALUES ($1, 'm1', 1, 'hello', 'waiting', $2, clock_timestamp() - interval '1 second')",
        device,
        values,
    )


@pytest.mark.parametrize("levels", [600, 900, 3000])
async def test_recovering_goes_on_after_a_device_that_fails_and_reports_it(
    dsn: str, connection: Connection, levels: int
) -> None:
    await orphan(connection, "bad", f'{{"x": {"[" * levels}{"]" * levels}}}')
    await orphan(connection, "d1")
    await orphan(connection, "d2")
    replies: list[tuple[str, str]] = []
    failures: list[tuple[str, Exception]] = []
    async with runtime(dsn) as moorline:
        count = await moorline.recover(
            lambda device, reply: replies.append((device, str(reply))),
            lambda device, error: failures.append((device, error)),
        )
        assert (count, replies) == (2, [("d1", "1: hello"), ("d2", "1: hello")])
        [(device, error)] = failures
        assert (device, type(error)) == ("bad", StateDamaged)

        # The message that cannot be read holds up no other, and waits until it can be.
        assert await say(moorline, "next", "m2", device="bad") == "1: next"
        assert await moorline.recover() == 0
        await connection.execute("UPDATE conversation_messages SET values = '{}' WHERE device_id = 'bad'")
        assert await moorline.recover() == 1
        assert await say(moorline, "hello", "m1", device="bad") == "2: hello"


async def test_recovering_goes_on_if_a_reply_cannot_be_passed_on(dsn: str, connection: Connection) -> None:
    await orphan(connection, "d1")
    await orphan(connection, "d2")

    def unreachable(device: str, reply: Reply) -> None:
        raise ConnectionError(device)

    failures: list[tuple[str, str]] = []
    async with runtime(dsn) as moorline:
        count = await moorline.recover(
            unreachable, lambda device, error: failures.append((device, type(error).__name__))
        )
        assert (count, failures) == (2, [("d1", "ConnectionError"), ("d2", "ConnectionError")])
