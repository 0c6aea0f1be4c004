"""On the wire: how many sends a turn takes, and that a lost answer neither makes a second turn nor loses one."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from moorline import Moorline, Reply
from moorline.background import GRACE
from moorline.errors import StoreUnavailable, TurnTimeout
from moorline_checkpoint import backoff, database
from moorline_checkpoint.tool_transaction import COMMIT
from moorline_checkpoint.transaction import BEGIN
from tests.faults.backends import all_idle, leaving_nothing
from tests.faults.conftest import Report
from tests.faults.laboratory import Way
from tests.faults.proxy import Direction, Proxy, Send, proxied
from tests.turns.runtimes import Stall, after_tools, execute, runtime, say

LOST_ANSWERS = [100, pytest.param(1000, marks=pytest.mark.laboratory)]
"""How many acknowledgements are lost in a test."""

AT_ONCE = 20
"""Turns in flight at once in tests with many."""


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with leaving_nothing(dsn), proxied(dsn) as proxy:
        yield proxy


def named(sends: list[Send]) -> list[str]:
    return [f"prepare {send.statement}" if send.prepares else send.statement for send in sends]


async def test_the_proxy_counts_what_is_waited_for(proxy: Proxy) -> None:
    connection = await asyncpg.connect(proxy.dsn)
    proxy.sends.clear()
    for _ in range(2):
        assert await connection.fetchval("SELECT $1::text", "a") == "a"
    await connection.execute("SELECT 1; SELECT 2")
    async with connection.transaction():
        await connection.executemany("SELECT $1::text", [("b",), ("c",)])
    await connection.close()
    assert named(proxy.sends) == [
        "prepare SELECT $1::text",
        "SELECT $1::text",
        "SELECT $1::text",
        "SELECT 1; SELECT 2",
        "BEGIN;",
        "SELECT $1::text",
        "COMMIT;",
    ]
    assert [send.devices for send in proxy.sends] == [(), ("a",), ("a",), (), (), ("c",), ()]


@pytest.mark.parametrize(
    ("statement_cache_size", "sends"),
    [(100, ["begin", "commit"]), (0, ["prepare begin", "begin", "prepare commit", "commit"])],
)
async def test_sends_of_a_hot_turn(proxy: Proxy, statement_cache_size: int, sends: list[str]) -> None:
    async with runtime(proxy.dsn, pool_max=1, statement_cache_size=statement_cache_size) as moorline:
        await say(moorline, "hello")
        for number in range(2, 70):  # past the turn at which an agent's history is stored whole
            proxy.sends.clear()
            assert (await say(moorline, "hello")).turn_no == number
            assert named(proxy.sends) == sends


async def test_sends_of_a_turn_with_an_effect(proxy: Proxy) -> None:
    async with runtime(proxy.dsn, pool_max=1) as moorline:
        for number in (1, 2):
            proxy.sends.clear()
            assert await say(moorline, "book table") == f"{number}: table"
    insert = "INSERT INTO bookings VALUES ($1, $2)"
    assert named(proxy.sends) == ["begin", BEGIN, "hold_turn", insert, "journal", COMMIT, "commit"]


def first_answers(statement: str, times: int = 1) -> Callable[[Send], bool]:
    """The first answers to each device's statement are lost, and with them those of others in the same batch."""
    lost: Counter[str] = Counter()

    def loses(send: Send) -> bool:
        if send.statement != statement or min(lost[device] for device in send.devices) >= times:
            return False
        lost.update(send.devices)
        return True

    return loses


async def to_many(number: int, deliver: Callable[[str], Awaitable[Reply]]) -> list[Reply]:
    """The answers to so many devices, `AT_ONCE` at a time."""
    some = asyncio.Semaphore(AT_ONCE)

    async def one(device: str) -> Reply:
        async with some:
            return await deliver(device)

    return await asyncio.gather(*(one(f"d{device}") for device in range(number)))


async def redeliver(moorline: Moorline, text: str, message_id: str, device: str) -> Reply:
    """Sends a message again as long as the store was to blame, as a webhook would."""
    while True:
        try:
            return await say(moorline, text, message_id, device)
        except StoreUnavailable:
            continue


async def stored(dsn: str) -> list[tuple[str, int, str, int]]:
    """Device, turn number, reply and attempts of all turns."""
    sql = "SELECT device_id, turn_no, reply, attempts FROM conversation_turns ORDER BY device_id, turn_no"
    return [tuple(row) for row in await execute(dsn, sql)]


@pytest.mark.parametrize("number", LOST_ANSWERS)
@pytest.mark.parametrize("statement", ["begin", "commit"])
async def test_lost_acknowledgements_are_all_resolved_to_one_turn(
    dsn: str, reached: Way, statement: str, number: int, report: Report
) -> None:
    async with (
        proxied(reached.dsn) as proxy,
        runtime(proxy.dsn, statement_cache_size=reached.statement_cache_size) as moorline,
    ):
        proxy.loses_answer = first_answers(statement)
        replies = await to_many(number, lambda device: say(moorline, "hello", "m1", device))
        assert {(str(reply), reply.turn_no, reply.replayed) for reply in replies} == {("1: hello", 1, False)}
        assert sorted(await stored(dsn)) == sorted((f"d{n}", 1, "1: hello", 1) for n in range(number))
        runs = [send for send in proxy.sends if send.statement == statement and not send.prepares]
        ran = Counter(device for send in runs for device in send.devices)
        assert list(ran.values()) == [2] * number  # lost, and asked for again
        assert await all_idle(dsn) <= 5
    report(turns=len(replies), resolved=f"{len(replies)} of {number}")


@pytest.mark.parametrize("statement", ["begin", "commit"])
async def test_acknowledgements_that_stay_lost_are_told_and_the_message_comes_again(
    dsn: str, proxy: Proxy, statement: str
) -> None:
    async with runtime(proxy.dsn) as moorline:
        proxy.loses_answer = first_answers(statement, times=2)

        async def deliver(device: str) -> Reply:
            with pytest.raises(StoreUnavailable):
                await say(moorline, "book table", "m1", device)
            return await redeliver(moorline, "book table", "m1", device)

        async with asyncio.timeout(60):
            replies = await to_many(30, deliver)
        assert {(str(reply), reply.turn_no) for reply in replies} == {("1: table", 1)}
        assert {reply.replayed for reply in replies} == {statement == "commit"}
        assert sorted(await stored(dsn)) == sorted((f"d{n}", 1, "1: table", 1) for n in range(30))
    booked = await execute(dsn, "SELECT device_id, count(*) FROM bookings GROUP BY device_id")
    assert [row["count"] for row in booked] == [1] * 30


async def test_a_claim_whose_answers_stay_lost_never_counts_as_an_attempt(dsn: str, proxy: Proxy) -> None:
    async with runtime(proxy.dsn) as moorline:
        for _ in range(5):
            proxy.loses_answer = first_answers("begin", times=2)
            with pytest.raises(StoreUnavailable):
                await say(moorline, "hello", "m1")
        assert await say(moorline, "hello", "m1") == "1: hello"
    assert await stored(dsn) == [("d1", 1, "1: hello", 1)]


@pytest.mark.parametrize("statement", ["journal", COMMIT])
async def test_a_lost_answer_in_an_effects_transaction_repeats_no_effect(
    dsn: str, proxy: Proxy, statement: str
) -> None:
    async with runtime(proxy.dsn) as moorline:
        lost: list[Send] = []

        def loses(send: Send) -> bool:
            if send.statement == statement and len(lost) < 5:
                lost.append(send)
                return True
            return False

        proxy.loses_answer = loses
        for number in range(10):
            assert await redeliver(moorline, f"book n{number}", f"m{number}", "d1") == f"{number + 1}: n{number}"
        assert len(lost) == 5
    booked = [row["what"] for row in await execute(dsn, "SELECT what FROM bookings")]
    assert sorted(booked) == [f"n{number}" for number in range(10)]


@pytest.mark.parametrize("repetition", range(3))
async def test_connections_that_break_at_random_times_lose_and_repeat_nothing(
    dsn: str, proxy: Proxy, seed: int, repetition: int
) -> None:
    async def three_turns(device: str) -> Reply:
        for turn in (1, 2, 3):
            reply = await redeliver(moorline, f"book n{turn}", f"m{turn}", device)
            assert (reply, reply.turn_no) == (f"{turn}: n{turn}", turn)
        return reply

    async with runtime(proxy.dsn) as moorline, asyncio.timeout(60):
        with proxy.resetting(seed=3 * seed + repetition, every=20):
            await to_many(20, three_turns)
        assert await all_idle(dsn) <= 5
    assert [row[:3] for row in await stored(dsn)] == sorted(
        (f"d{device}", turn, f"{turn}: n{turn}") for device in range(20) for turn in (1, 2, 3)
    )
    booked = await execute(dsn, "SELECT device_id, what, count(*) FROM bookings GROUP BY device_id, what")
    assert [row["count"] for row in booked] == [1] * 60


HOLES: list[Direction] = ["both", "to_server", "to_client"]


@pytest.mark.parametrize("direction", HOLES)
async def test_a_turn_that_begins_in_a_black_hole_ends_in_time(dsn: str, proxy: Proxy, direction: Direction) -> None:
    async with runtime(proxy.dsn) as moorline:
        await say(moorline, "hello", "m0")
        with proxy.black_hole(direction):
            started = time.monotonic()
            with pytest.raises(TurnTimeout):
                await say(moorline, "book table", "m1", timeout=1)
            assert time.monotonic() - started < 1 + GRACE + 3
        await once(dsn, moorline)


@pytest.mark.parametrize("direction", HOLES)
@pytest.mark.parametrize("text", ["hello", "book table"])
async def test_a_turn_that_ends_in_a_black_hole_ends_in_time(
    dsn: str, proxy: Proxy, direction: Direction, text: str
) -> None:
    """The hole opens before the commit, or before the effect."""
    stall = Stall(lambda request: request.messages[-1]["content"] != "before")
    async with runtime(proxy.dsn, stall) as moorline:
        await say(moorline, "before", "m0")
        running = asyncio.create_task(say(moorline, text, "m1", timeout=1))
        await stall.reached.wait()
        with proxy.black_hole(direction):
            stall.go_on.set()
            started = time.monotonic()
            with pytest.raises(TurnTimeout):
                await running
            assert time.monotonic() - started < 1 + GRACE + 3
        await once(dsn, moorline, text)


@pytest.mark.parametrize("direction", HOLES)
async def test_a_black_hole_that_outlasts_a_statement_is_a_store_that_is_down(
    dsn: str, proxy: Proxy, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACQUIRE_TIMEOUT", "CONNECT_TIMEOUT", "STATEMENT_TIMEOUT"):
        monkeypatch.setattr(database, name, 0.4)
    stall = Stall(after_tools)
    async with runtime(proxy.dsn, stall) as moorline:
        await say(moorline, "hello", "m0")
        running = asyncio.create_task(say(moorline, "book table", "m1"))
        await stall.reached.wait()
        with proxy.black_hole(direction):
            stall.go_on.set()
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await running
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await say(moorline, "another", "m2")
            assert time.monotonic() - started < 4 * (3 * 0.4 + backoff.LONGEST + GRACE)
        await once(dsn, moorline)


async def once(dsn: str, moorline: Moorline, text: str = "book table") -> None:
    """The message `m1` is answered now, and has been answered exactly once."""
    reply = await say(moorline, text, "m1", timeout=30)
    assert reply == f"2: {text.removeprefix('book ')}"
    assert (await say(moorline, text, "m1")).replayed
    assert [row[:3] for row in await stored(dsn) if row[1] == 2] == [("d1", 2, str(reply))]
    assert len(await execute(dsn, "SELECT FROM bookings")) == text.count("book")


async def test_a_slow_network_only_takes_its_time(dsn: str, proxy: Proxy) -> None:
    async with runtime(proxy.dsn) as moorline:
        await say(moorline, "hello")
        proxy.delay = 0.05
        started = time.monotonic()
        assert await say(moorline, "hello") == "2: hello"
        assert time.monotonic() - started >= 4 * proxy.delay
