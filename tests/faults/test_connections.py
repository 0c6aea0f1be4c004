"""Connections: few are enough, none is held while a turn thinks or waits, and none leaks when the store goes away and
comes back."""

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from moorline import Moorline
from moorline.errors import AgentError, StoreUnavailable
from moorline.testing import serve
from moorline_agents.agent import Agent
from moorline_agents.tools import Tool, ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest
from moorline_checkpoint import database
from moorline_checkpoint.backoff import LONGEST
from moorline_checkpoint.turns import LEASE_SECONDS
from tests.faults.backends import OTHERS, all_idle, kill, leaving_nothing, states
from tests.faults.conftest import Report
from tests.faults.laboratory import Way
from tests.faults.proxy import Proxy, Send, proxied
from tests.turns.runtimes import Stall, Thing, execute, in_queue, obedient, runtime, say


@pytest.fixture(autouse=True)
async def _nothing_is_left(dsn: str) -> AsyncIterator[None]:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with leaving_nothing(dsn):
        yield


@pytest.fixture
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long so many turns take is not what the tests are about."""
    monkeypatch.setattr(database, "ACQUIRE_TIMEOUT", 60)


@pytest.mark.usefixtures("_busy_machine")
async def test_two_connections_serve_two_hundred_turns_at_once(dsn: str) -> None:
    texts = ["hello", "book table"]
    async with runtime(dsn, pool_max=2) as moorline:
        replies = await asyncio.gather(*(say(moorline, texts[n % 2], "m1", f"d{n}") for n in range(200)))
        assert Counter(map(str, replies)) == {"1: hello": 100, "1: table": 100}
        assert await all_idle(dsn) == 2
    assert len(await execute(dsn, "SELECT FROM bookings")) == 100


@pytest.mark.usefixtures("_busy_machine")
async def test_five_hundred_turns_in_flight_need_five_connections_and_hold_none_while_models_think(dsn: str) -> None:
    thinking, all_think, go_on = 0, asyncio.Event(), asyncio.Event()

    async def think(request: ModelRequest) -> ModelReply:
        nonlocal thinking
        thinking += 1
        if thinking == 500:
            all_think.set()
        await go_on.wait()
        return obedient(request)

    async with runtime(dsn, think) as moorline:
        turns = [asyncio.create_task(say(moorline, "hello", "m1", f"d{n}")) for n in range(500)]
        await all_think.wait()
        assert await all_idle(dsn) <= 5
        running = await execute(dsn, "SELECT FROM conversation_messages WHERE status = 'running'")
        assert len(running) == 500
        await moorline.session("d1")  # a connection is free
        go_on.set()
        assert {str(reply) for reply in await asyncio.gather(*turns)} == {"1: hello"}
        assert await all_idle(dsn) <= 5


async def test_messages_that_wait_hold_no_connection_and_ask_seldom(dsn: str) -> None:
    stall = Stall()
    async with proxied(dsn) as proxy, runtime(proxy.dsn, stall, pool_max=2) as moorline:
        running = asyncio.create_task(say(moorline, "hello"))
        await stall.reached.wait()
        waiting = [asyncio.create_task(say(moorline, f"t{number}")) for number in range(50)]
        await in_queue(dsn, 50)
        await all_idle(dsn)
        proxy.sends.clear()
        started = time.monotonic()
        await asyncio.sleep(1)
        passed = time.monotonic() - started
        # The first asks every 100 ms, each of the others every 5 s.
        assert len([send for send in proxy.sends if send.statement == "begin"]) <= passed * (10 + 50 / 5) + 2
        stall.go_on.set()
        await asyncio.gather(running, *waiting)


async def test_a_call_outside_holds_no_connection(dsn: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="outside")
    async def ring(thing: Thing, context: ToolContext) -> str:
        """Calls somebody who takes some time."""
        reached.set()
        await go_on.wait()
        return thing.what

    async with runtime(dsn, calling("ring"), agent=with_tool(ring), pool_max=1) as moorline:
        ringing = asyncio.create_task(say(moorline, "ring"))
        await reached.wait()
        assert await all_idle(dsn) == 1
        await moorline.session("d1")
        go_on.set()
        assert await ringing == "done"


async def test_a_database_effect_holds_one_for_its_own_transaction(dsn: str) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="database")
    async def book(thing: Thing, context: ToolContext) -> str:
        """Takes some time in its transaction."""
        if reached.is_set():
            return "nothing"
        async with context.transaction() as connection:
            await connection.execute("INSERT INTO bookings VALUES ($1, $2)", context.device_id, thing.what)
            reached.set()
            await go_on.wait()
        return thing.what

    async with runtime(dsn, calling("book"), agent=with_tool(book), pool_max=2) as moorline:
        booking = asyncio.create_task(say(moorline, "book"))
        await reached.wait()
        assert Counter(await states(dsn))["idle in transaction"] == 1
        assert await say(moorline, "hello", device="d2") == "done"
        go_on.set()
        assert await booking == "done"
        await all_idle(dsn)


async def test_a_transaction_ends_before_its_lease_whatever_the_tool_does(dsn: str) -> None:
    seen: list[str] = []

    @tool(effect="database")
    async def book(thing: Thing, context: ToolContext) -> str:
        """Looks at its limits."""
        async with context.transaction() as connection:
            for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                seen.append(await connection.fetchval("SELECT current_setting($1)", name))
        return thing.what

    async with runtime(dsn, calling("book"), agent=with_tool(book), pool_max=1) as moorline:
        await say(moorline, "book")
    assert seen == ["10s", "10s"]
    assert LEASE_SECONDS > 10


def with_tool(single: Tool) -> Agent:
    return Agent(name="desk", description="does it", instructions="desk", tools=[single])


def calling(name: str) -> Callable[[ModelRequest], ModelReply]:
    """Calls the tool once, and then is done."""

    def rules(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "tool":
            return ModelReply(text="done")
        return ModelReply(calls=(Call(name=name, arguments={"what": "it"}),))

    return rules


@pytest.mark.parametrize("loops", [10, pytest.param(500, marks=pytest.mark.laboratory)])
async def test_many_event_loops_in_one_process_leave_nothing_behind(
    dsn: str, reached: Way, loops: int, report: Report
) -> None:
    def echo(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "concierge"}),))
        return ModelReply(text=request.messages[-1]["content"] or "")

    async with serve(echo) as base_url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.faults.loops", str(loops)),
            env={
                **os.environ,
                "DATABASE_URL": reached.dsn,
                "OPENAI_BASE_URL": base_url,
                "MOORLINE_STATEMENT_CACHE_SIZE": str(reached.statement_cache_size),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    samples = [json.loads(line) for line in output.splitlines()]
    assert samples[-1]["loops"] == loops
    assert {sample["runtimes"] for sample in samples} == {0}
    assert len({sample["files"] for sample in samples}) == 1
    # What a loop leaves in reference cycles is collected now and then: memory levels off after some 200 loops.
    warm, last = samples[len(samples) // 2], samples[-1]
    growth = last["memory"] - warm["memory"]
    report(turns=loops, memory_growth_kib=growth)
    assert growth < 2048 + 4 * (last["loops"] - warm["loops"])  # KiB
    assert len(await execute(dsn, "SELECT FROM conversation_turns")) == loops


def freeze(dsn: str) -> None:
    """Blocks the event loop while the server ends all connections, so that the loop has not noticed."""
    thread = threading.Thread(target=lambda: asyncio.run(kill(dsn)))
    thread.start()
    thread.join()


@pytest.mark.parametrize("hours", [0, 2], ids=["for a moment", "for two hours"])
async def test_a_process_that_was_frozen_goes_on(
    dsn: str, reached: Way, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    async with runtime(reached.dsn, statement_cache_size=reached.statement_cache_size) as moorline:
        await asyncio.gather(*(say(moorline, "hello", device=f"d{number}") for number in range(20)))
        await all_open(moorline, 5)
        assert 0 < await all_idle(dsn) <= 5
        freeze(dsn)
        later = time.time() + hours * 3600
        monkeypatch.setattr("time.time", lambda: later)
        assert await say(moorline, "hello", device="d1") == "2: hello"
        replies = await asyncio.gather(*(say(moorline, "book table", device=f"d{number}") for number in range(2, 20)))
        assert {str(reply) for reply in replies} == {"2: table"}


@pytest.mark.parametrize("text", ["hello", "book it", "ring it", "chime it"])
async def test_a_process_that_was_frozen_in_a_turn_finishes_it(dsn: str, text: str) -> None:
    stall = Stall()
    async with runtime(dsn, stall, pool_max=3) as moorline:
        running = asyncio.create_task(say(moorline, text))
        await stall.reached.wait()
        await asyncio.gather(*(moorline.session("d1") for _ in range(10)))  # all connections are open
        assert await all_idle(dsn) == 3
        freeze(dsn)
        stall.go_on.set()
        assert await running == f"1: {text.rsplit(maxsplit=1)[-1]}"


async def test_a_broken_connection_costs_no_other_that_is_in_use(dsn: str) -> None:
    """An idle one may have been lost with it, and is replaced before it is used."""
    busy, go_on = asyncio.Barrier(4), asyncio.Event()

    @tool(effect="database")
    async def book(thing: Thing, context: ToolContext) -> str:
        """Takes some time in its transaction."""
        if context.device_id != "unlucky":
            async with context.transaction() as connection:
                await connection.execute("SELECT")
                await busy.wait()
                await go_on.wait()
        return thing.what

    losing: list[Send] = []

    def loses(send: Send) -> bool:
        if send.statement != "begin" or losing:
            return False
        losing.append(send)
        return True

    async with (
        proxied(dsn) as proxy,
        runtime(proxy.dsn, calling("book"), agent=with_tool(book), pool_max=5) as moorline,
    ):
        await all_open(moorline, 5)
        before = await processes(dsn)
        booking = [asyncio.create_task(say(moorline, "book", device=f"d{number}")) for number in range(3)]
        await busy.wait()
        in_use = await processes(dsn, "idle in transaction")
        proxy.loses_answer = loses
        assert await say(moorline, "hello", device="unlucky") == "done"
        assert losing
        go_on.set()
        await asyncio.gather(*booking)
        await all_open(moorline, 5)
        assert len(before) == 5
        assert len(in_use) == 3
        assert in_use <= await processes(dsn)
        assert len(before - await processes(dsn)) == 2  # the broken one and the idle one


async def all_open(moorline: Moorline, connections: int) -> None:
    """Uses so many connections at once."""
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            await stack.enter_async_context(moorline._backend.saver.database.connection())


async def processes(dsn: str, state: str = "idle") -> set[int]:
    """The server's process IDs of the connections in that state."""
    rows = await execute(dsn, f"SELECT pid FROM pg_stat_activity WHERE {OTHERS} AND state = $1", state)  # noqa: S608
    return {row["pid"] for row in rows}


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    async with proxied(dsn) as proxy:
        yield proxy


async def test_everybody_is_told_at_once_that_the_store_is_down(dsn: str, proxy: Proxy) -> None:
    async def ask(moorline: Moorline, device: str) -> float:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await say(moorline, "hello", "m1", device)
        return time.monotonic() - started

    async with runtime(proxy.dsn) as moorline:
        await say(moorline, "hello")
        async with proxy.refusing():
            for _ in range(3):
                waited = await asyncio.gather(*(ask(moorline, f"d{number}") for number in range(200)))
                assert max(waited) < 2 * LONGEST + 1
        started = time.monotonic()
        assert await say(moorline, "hello") == "2: hello"
        assert time.monotonic() - started < LONGEST + 2


async def test_a_turn_whose_store_goes_away_is_told_and_the_message_comes_again(dsn: str, proxy: Proxy) -> None:
    stall = Stall()
    async with runtime(proxy.dsn, stall) as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m1"))
        await stall.reached.wait()
        async with proxy.refusing():
            stall.go_on.set()
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await running
            assert time.monotonic() - started < 2 * LONGEST + 3
        async with asyncio.timeout(10):  # its lease would be 15 s, but it is released as soon as the store is back
            assert await say(moorline, "hello", "m1") == "1: hello"
    [turn] = await execute(dsn, "SELECT attempts FROM conversation_turns")
    assert turn["attempts"] == 1


async def test_an_outage_does_not_count_as_an_attempt(dsn: str, proxy: Proxy) -> None:
    async with runtime(proxy.dsn, stall := Stall()) as moorline:
        for _ in range(4):
            stall.reached.clear()
            stall.go_on.clear()
            running = asyncio.create_task(say(moorline, "hello", "m1"))
            await stall.reached.wait()
            async with proxy.refusing():
                stall.go_on.set()
                with pytest.raises(StoreUnavailable):
                    await running
        assert await say(moorline, "hello", "m1") == "1: hello"


async def test_a_stateless_runtime_answers_without_memory_while_the_store_is_down(dsn: str, proxy: Proxy) -> None:
    async with runtime(proxy.dsn, on_store_down="stateless") as moorline:
        assert await say(moorline, "hello", "m1") == "1: hello"
        async with proxy.refusing():
            reply = await say(moorline, "next", "m2")
            assert (reply, reply.degraded, reply.turn_no) == ("1: next", True, 0)
            reply = await say(moorline, "book table", "m3")
            assert reply.degraded
            assert "cannot be reached" in reply
        reply = await say(moorline, "next", "m2")
        assert (reply, reply.degraded, reply.turn_no) == ("2: next", False, 2)
    assert await execute(dsn, "SELECT FROM bookings") == []


async def test_a_stateless_runtime_opens_while_the_store_is_down(proxy: Proxy) -> None:
    async with proxy.refusing(), runtime(proxy.dsn, on_store_down="stateless") as moorline:
        assert (await say(moorline, "hello")).degraded


async def test_what_fails_without_the_store_is_an_error_of_ours_too(proxy: Proxy) -> None:
    def failing(request: ModelRequest) -> ModelReply:
        raise LookupError

    async with proxy.refusing(), runtime(proxy.dsn, failing, on_store_down="stateless") as moorline:
        with pytest.raises(AgentError) as caught:
            await say(moorline, "hello")
        assert isinstance(caught.value.__cause__, LookupError)


async def test_a_stateless_runtime_answers_degraded_only_if_begin_never_reached_the_store(
    dsn: str, proxy: Proxy
) -> None:
    async with runtime(proxy.dsn, on_store_down="stateless") as moorline:
        await say(moorline, "hello", "m0")
        proxy.loses_answer = lambda send: send.statement == "begin"
        with pytest.raises(StoreUnavailable):
            await say(moorline, "hello", "m1")
        proxy.loses_answer = lambda _: False
        reply = await say(moorline, "hello", "m1")
        assert (reply, reply.degraded) == ("2: hello", False)


async def test_a_stateless_runtime_does_not_guess_when_the_store_goes_away_after_begin(dsn: str, proxy: Proxy) -> None:
    stall = Stall()
    async with runtime(proxy.dsn, stall, on_store_down="stateless") as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m1"))
        await stall.reached.wait()
        async with proxy.refusing():
            stall.go_on.set()
            with pytest.raises(StoreUnavailable):
                await running


async def test_a_runtime_that_cannot_be_opened_leaves_nothing(proxy: Proxy) -> None:
    async with proxy.refusing():
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            async with runtime(proxy.dsn):
                pytest.fail("it was opened")
        assert time.monotonic() - started < 2 * LONGEST + 3
