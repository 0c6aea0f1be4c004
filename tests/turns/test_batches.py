"""What many devices want at the same moment goes to the database as one statement, and no item affects another."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from threading import Barrier
from uuid import uuid4

import asyncpg
import pytest

from moorline_checkpoint import batcher
from moorline_checkpoint.batcher import LARGEST
from moorline_checkpoint.database import STATEMENTS, Database
from moorline_checkpoint.queue import Replayed
from moorline_checkpoint.rows import CheckpointRow
from moorline_checkpoint.slowness import QUICK, SUSPECTS
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns
from moorline_migrations.errors import StoreUnavailable
from moorline_migrations.statements import load
from tests.faults.proxy import proxied

from .claims import Connection, answer, begin, claim, message, record, statuses
from .runtimes import execute, runtime, say

DEVICES = [f"d{number}" for number in range(100)]
HANDFUL = len(DEVICES) // LARGEST + 3
"""Statements."""

NAMES = load(STATEMENTS, "public")

TOO_LONG = Random(0).randbytes(4000).hex()  # noqa: S311 - repeatable, no secret
"""A device ID that no index of the database holds."""


@asynccontextmanager
async def held_up(connection: Connection) -> AsyncIterator[None]:
    """A task that claims a turn meanwhile is on its way until the block ends."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE conversation_messages IN ACCESS EXCLUSIVE MODE")
        yield


async def on_its_way(dsn: str) -> None:
    """Returns when a statement waits at the server."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while (await execute(dsn, waiting))[0]["count"] != 1:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)


async def test_a_hundred_devices_begin_and_commit_in_a_handful_of_statements(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        await answer(turns, message("warm"))
        proxy.sends.clear()
        await asyncio.gather(*(answer(turns, message(device=device)) for device in DEVICES))
        sends = [send for send in proxy.sends if not send.prepares and send.statement in NAMES]
        await database.close()
    assert {send.statement for send in sends} == {"begin", "commit"}
    for name in ("begin", "commit"):
        grouped = [send.devices for send in sends if send.statement == name]
        assert len(grouped) <= HANDFUL
        assert Counter(device for group in grouped for device in group) == Counter(DEVICES)


async def test_no_batch_is_larger_than_it_may_be(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        await asyncio.gather(*(answer(turns, message(device=f"d{number}")) for number in range(2 * LARGEST + 1)))
        sizes = [len(send.devices) for send in proxy.sends if send.statement == "begin" and not send.prepares]
        await database.close()
    assert max(sizes) == LARGEST


async def test_a_begin_that_fails_fails_alone(turns: Turns, connection: Connection) -> None:
    devices = [*DEVICES[:10], TOO_LONG, *DEVICES[10:20]]
    found = await asyncio.gather(*(begin(turns, message(device=device)) for device in devices), return_exceptions=True)
    assert [type(one) for one in found if not isinstance(one, OpenTurn)] == [asyncpg.ProgramLimitExceededError]
    assert isinstance(found[10], asyncpg.ProgramLimitExceededError)
    assert [one.device_id for one in found if isinstance(one, OpenTurn)] == DEVICES[:20]
    assert await connection.fetchval("SELECT count(*) FROM conversation_messages WHERE status = 'running'") == 20


async def test_a_commit_that_fails_fails_alone(turns: Turns) -> None:
    opened = await asyncio.gather(*(claim(turns, message(device=device)) for device in DEVICES[:10]))
    opened[4].set_lock("x" * 51, None)  # more than the column holds
    outcomes = await asyncio.gather(*(turns.commit(turn, record(turn)) for turn in opened), return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [asyncpg.StringDataRightTruncationError]
    assert [len(await turns.transcript(turn.device_id)) for turn in opened] == [int(n != 4) for n in range(10)]


async def test_a_task_cancelled_before_its_item_is_sent_leaves_nothing(
    dsn: str, turns: Turns, connection: Connection
) -> None:
    await answer(turns, message("warm"))
    async with held_up(connection):
        first = asyncio.create_task(begin(turns, message(device="first")))
        await on_its_way(dsn)
        second, third = (asyncio.create_task(begin(turns, message(device=name))) for name in ("second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        assert not first.done()
    assert isinstance(await first, OpenTurn)
    assert isinstance(await third, OpenTurn)
    assert await statuses(connection, "second") == {}
    assert await connection.fetchval("SELECT count(*) FROM conversation_states WHERE device_id = 'second'") == 0


async def test_a_task_cancelled_while_its_item_is_on_its_way_ends_when_the_batch_is_back(
    dsn: str, turns: Turns, connection: Connection
) -> None:
    await answer(turns, message("warm"))
    claim_id = uuid4()
    async with held_up(connection):
        beginning = asyncio.create_task(begin(turns, message(), claim_id))
        await on_its_way(dsn)
        for _ in range(3):
            beginning.cancel()
            await asyncio.wait([beginning], timeout=0.05)
        assert not beginning.done()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert await statuses(connection, "d1") == {"warm": ("done", 1), "m1": ("running", 1)}
    await turns.withdraw(message(), claim_id=claim_id)
    assert (await answer(turns, message("m2"))).turn_no == 2


async def test_what_a_cancelled_caller_won_is_withdrawn(dsn: str, connection: Connection) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello")
        async with held_up(connection):
            saying = asyncio.create_task(say(moorline, "gone", "m1"))
            await on_its_way(dsn)
            saying.cancel()
            await asyncio.wait([saying])
        # It may still be on its way back; the next message gets the device all the same, and the first turn.
        assert await say(moorline, "next", "m2") == "2: next"
        assert "m1" not in await statuses(connection)
        assert await connection.fetchval("SELECT claim_id FROM conversation_states") is None


def test_a_loop_that_ends_with_an_item_on_its_way_leaves_the_next_loop_alone(dsn: str) -> None:
    database = Database(dsn)
    turns = Turns(database, default_ttl=60)

    async def end_in_the_middle() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("BEGIN; LOCK TABLE conversation_messages IN ACCESS EXCLUSIVE MODE")
        leaving.append(asyncio.create_task(begin(turns, message(device="first"))))
        await on_its_way(dsn)
        leaving.extend(asyncio.create_task(begin(turns, message(device=device))) for device in DEVICES)
        await asyncio.sleep(0)
        connection.terminate()

    leaving: list[asyncio.Task[object]] = []
    asyncio.run(end_in_the_middle())
    assert [task.cancelled() for task in leaving] == [True] * (1 + len(DEVICES))

    async def go_on() -> None:
        await asyncio.gather(*(answer(turns, message(device=device)) for device in DEVICES))
        await database.close()

    asyncio.run(go_on())


async def test_two_loops_at_once_share_the_cache_but_no_batch(dsn: str) -> None:
    database = Database(dsn)
    turns = Turns(database, default_ttl=60)
    both = Barrier(2)

    async def converse(name: str) -> None:
        async def speak(device: str) -> None:
            for number in range(20):
                turn = await claim(turns, message(f"{name}{number}", device=device))
                turn.set_lock("desk", None)
                turn.put(CheckpointRow("desk", f"{number}", None, "json", b"", "{}", "{}"), [])
                await turns.commit(turn, record(turn))

        both.wait(30)
        await asyncio.gather(*(speak(f"{name} {number}") for number in range(20)))
        await database.close()

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, converse(name)) for name in ("one", "two")))
    numbers = await execute(dsn, "SELECT last_turn_no FROM conversation_states")
    assert [row["last_turn_no"] for row in numbers] == [20] * 40


async def test_a_row_that_is_locked_for_long_is_given_up_and_holds_nobody_up(
    turns: Turns, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "PATIENCE", 0.3)
    committing = await claim(turns, message("m1"))
    await answer(turns, message("m0", device="d2"))
    async with connection.transaction():
        await connection.fetch("SELECT FROM conversation_states FOR UPDATE")
        held = [
            asyncio.create_task(turns.commit(committing, record(committing))),
            asyncio.create_task(begin(turns, message("m1", device="d2"))),
        ]
        number = 0
        while not all(one.done() for one in held):
            number += 1
            await answer(turns, message(device=f"other {number}"))
        outcomes = await asyncio.gather(*held, return_exceptions=True)
    assert [type(one) for one in outcomes] == [StoreUnavailable] * 2
    assert number > 2  # however busy the machine
    assert "has been locked for 0.3 s" in str(outcomes[0])
    # Nothing was done for either, and both may be tried again.
    await turns.commit(committing, record(committing))
    assert isinstance(await begin(turns, message("m1")), Replayed)
    assert (await answer(turns, message("m1", device="d2"))).turn_no == 2


async def test_while_the_store_is_away_each_item_of_a_batch_gets_its_own_error(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        async with proxy.refusing():
            found = await asyncio.gather(
                *(begin(turns, message(device=device)) for device in DEVICES), return_exceptions=True
            )
        errors = [one for one in found if isinstance(one, StoreUnavailable)]
        assert len({id(error) for error in errors}) == len(DEVICES)
        assert not any(error.reached for error in errors)
        await asyncio.gather(*(answer(turns, message(device=device)) for device in DEVICES))
        await database.close()


SLOWED = """
    CREATE FUNCTION slow_down() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(CASE WHEN NEW.device_id ~ %s THEN %s ELSE 0 END);
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER slow_down BEFORE INSERT ON conversation_messages FOR EACH ROW EXECUTE FUNCTION slow_down();
"""
"""Makes the claims of some devices take so many seconds."""


async def timed(turns: Turns, device: str) -> float:
    """Seconds that a turn takes."""
    began = time.perf_counter()
    await answer(turns, message(str(uuid4()), device=device))
    return time.perf_counter() - began


async def test_a_slow_device_holds_up_no_other(dsn: str, connection: Connection) -> None:
    await connection.execute(SLOWED % ("'slow'", 2))
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        await answer(turns, message("warm"))
        slow, *quick = await asyncio.gather(*(timed(turns, device) for device in ["slow", *DEVICES[:LARGEST]]))
        assert slow > 2
        assert max(quick) < slow - 0.5
        # From then on it is in no batch, so that nobody notices it.
        proxy.sends.clear()
        slow, *quick = await asyncio.gather(*(timed(turns, device) for device in ["slow", *DEVICES[:LARGEST]]))
        assert max(quick) < QUICK
        grouped = [send.devices for send in proxy.sends if send.statement == "begin"]
        assert ("slow",) in grouped
        assert not any("slow" in devices for devices in grouped if len(devices) > 1)
        # Once it is quick again it is in batches again.
        await connection.execute("DROP TRIGGER slow_down ON conversation_messages")
        await timed(turns, "slow")
        proxy.sends.clear()
        await asyncio.gather(*(timed(turns, device) for device in [DEVICES[0], "slow", *DEVICES[1:LARGEST]]))
        assert any("slow" in send.devices and len(send.devices) > 1 for send in proxy.sends)
        await database.close()


async def test_if_many_are_slow_it_is_the_store_and_batches_stay_whole(dsn: str, connection: Connection) -> None:
    await connection.execute(SLOWED % ("'^d'", 1.5 * QUICK))
    many = DEVICES[: SUSPECTS + 2]
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        await answer(turns, message("warm", device="other"))
        await asyncio.gather(*(timed(turns, device) for device in many))
        proxy.sends.clear()
        await asyncio.gather(*(timed(turns, device) for device in many))
        await database.close()
    begins = [send.devices for send in proxy.sends if send.statement == "begin"]
    assert len(begins) <= 2
    assert sorted(device for devices in begins for device in devices) == sorted(many)


async def test_a_device_at_fault_is_in_no_batch_any_more(dsn: str) -> None:
    async with proxied(dsn) as proxy:
        database = Database(proxy.dsn)
        turns = Turns(database, default_ttl=60)
        for _ in range(2):
            proxy.sends.clear()
            await asyncio.gather(
                *(begin(turns, message(str(uuid4()), device=device)) for device in [*DEVICES[:5], TOO_LONG]),
                return_exceptions=True,
            )
        await database.close()
    assert not any(TOO_LONG in send.devices for send in proxy.sends if len(send.devices) > 1)
