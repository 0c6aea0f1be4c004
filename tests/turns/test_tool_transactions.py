# ruff: noqa: TRY301, PT012 - what stands in a block is what the tests are about
"""What tools do to the database: a block is kept completely or not at all, and nothing of a tool outlives its call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
from types import NoneType
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from moorline import Reply
from moorline.errors import MoorlineError, StaleTurn, TransactionError
from moorline_agents.agent import Agent
from moorline_agents.tools import Connection, Effect, ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest
from moorline_checkpoint import tool_transaction
from moorline_checkpoint.database import Database
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import HEARTBEAT, LEASE_SECONDS, Turns
from tests.faults.backends import leaving_nothing, states
from tests.pgbouncer import needs_pgbouncer, pooled

from .claims import claim, expire_lease, message
from .runtimes import after_tools, execute, runtime, say

Body = Callable[[ToolContext], Awaitable[Any]]

INSERT = "INSERT INTO bookings VALUES ($1)"


class Nothing(BaseModel):
    """No arguments."""


@pytest.fixture(autouse=True)
async def _bookings(dsn: str) -> AsyncIterator[None]:
    await execute(dsn, "CREATE TABLE bookings (what text)")
    async with leaving_nothing(dsn):
        yield


def doing(body: Body, effect: Effect = "database") -> Agent:
    """An agent whose only tool does this."""

    @tool(effect=effect)
    async def act(arguments: Nothing, context: ToolContext) -> Any:
        """Does it."""
        return await body(context)

    return Agent(name="desk", description="does it", instructions="desk", tools=[act])


def obedient(request: ModelRequest) -> ModelReply:
    """Calls the tool for `act` and says its result; answers anything else."""
    if after_tools(request):
        return ModelReply(text=str(request.messages[-1]["content"]))
    acts = request.messages[-1]["content"] == "act"
    return ModelReply(calls=(Call(name="act"),)) if acts else ModelReply(text="hello")


async def act(dsn: str, body: Body, effect: Effect = "database", **settings: Any) -> Reply:
    """The reply, which is the tool's result as the model was shown it."""
    async with runtime(dsn, obedient, agent=doing(body, effect), **settings) as moorline:
        return await say(moorline, "act", "m1")


async def booked(dsn: str) -> list[str]:
    return [row["what"] for row in await execute(dsn, "SELECT what FROM bookings ORDER BY what")]


async def results(dsn: str) -> list[str]:
    """The journaled results of effects."""
    return [row["result"] for row in await execute(dsn, "SELECT result::text FROM conversation_effects")]


async def insert(connection: Connection, what: str) -> None:
    await connection.execute(INSERT, what)


# A block is kept or not


@pytest.mark.parametrize("effect", ["database", "outside", "none"])
async def test_a_block_that_raises_keeps_nothing_though_the_tool_goes_on(dsn: str, effect: Effect) -> None:
    async def body(context: ToolContext) -> str:
        for what in ("first", "second", "third"):
            try:
                async with context.transaction() as connection:
                    await insert(connection, what)
                    if what != "second":
                        raise LookupError
            except LookupError:
                pass
        return "done"

    assert await act(dsn, body, effect) == '"done"'
    assert await booked(dsn) == ["second"]


async def test_blocks_after_the_first_are_rolled_back_one_by_one(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
        try:
            async with context.transaction() as connection:
                await insert(connection, "second")
                raise LookupError
        except LookupError:
            async with context.transaction() as connection:
                await insert(connection, "third")

    await act(dsn, body)
    assert await booked(dsn) == ["first", "third"]


@pytest.mark.parametrize("effect", ["database", "outside", "none"])
async def test_a_nested_block_that_raises_keeps_only_what_stood_before_it(dsn: str, effect: Effect) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as outer:
            await insert(outer, "before")
            try:
                async with context.transaction() as inner:
                    await insert(inner, "inner")
                    async with context.transaction() as innermost:
                        await insert(innermost, "innermost")
                    raise LookupError
            except LookupError:
                await insert(outer, "after")
            async with context.transaction() as inner:
                await insert(inner, "again")

    await act(dsn, body, effect)
    assert await booked(dsn) == ["after", "again", "before"]


async def test_an_outer_block_that_raises_keeps_nothing_of_those_within(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        try:
            async with context.transaction():
                async with context.transaction() as inner:
                    await insert(inner, "inner")
                raise LookupError
        except LookupError:
            pass

    await act(dsn, body)
    assert await booked(dsn) == []


async def test_a_refusal_keeps_nothing_of_the_blocks_before_it(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
        raise ToolRefused("no")

    assert "no" in await act(dsn, body)
    assert await booked(dsn) == []


async def test_a_statement_that_may_fail_can_have_a_block_of_its_own(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "before")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with context.transaction() as inner:
                    await inner.fetchval("SELECT 1 / 0")
            await insert(connection, "after")

    await act(dsn, body)
    assert await booked(dsn) == ["after", "before"]


async def test_a_database_tool_without_a_block_is_journaled(dsn: str) -> None:
    async def body(context: ToolContext) -> str:
        return "done"

    await act(dsn, body)
    assert await results(dsn) == ['{"value": "done"}']


async def test_what_a_block_did_is_kept_only_with_the_tools_result(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
        assert await booked(dsn) == []
        raise LookupError

    with pytest.raises(MoorlineError, match="LookupError"):
        await act(dsn, body)
    assert (await booked(dsn), await results(dsn)) == ([], [])


async def test_a_block_of_a_turn_that_was_taken_over_does_nothing(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async def body(context: ToolContext) -> None:
        await expire_lease(connection)
        await connection.execute("UPDATE conversation_states SET claim_id = gen_random_uuid()")
        async with context.transaction() as own:
            await insert(own, "first")

    with pytest.raises(StaleTurn):
        await act(dsn, body)
    assert await booked(dsn) == []


# Two at once


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
async def test_two_blocks_at_once_are_refused(dsn: str, begun: bool) -> None:
    async def body(context: ToolContext) -> None:
        open_now = asyncio.Event()

        async def one() -> None:
            async with context.transaction() as connection:
                await insert(connection, "one")
                open_now.set()
                await asyncio.sleep(0.05)

        async def other() -> None:
            await open_now.wait()
            with pytest.raises(TransactionError, match="one after another"):
                async with context.transaction() as connection:
                    await insert(connection, "other")

        if begun:
            async with context.transaction() as connection:
                await insert(connection, "begun")
        await asyncio.gather(one(), other())

    await act(dsn, body)
    assert await booked(dsn) == (["begun", "one"] if begun else ["one"])


async def test_two_blocks_at_once_within_another_are_refused(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async def inner(what: str) -> None:
            async with context.transaction() as connection:
                await insert(connection, what)
                await asyncio.sleep(0.05)

        async with context.transaction():
            await inner("alone")
            results = await asyncio.gather(inner("one"), inner("other"), return_exceptions=True)
        assert {type(result) for result in results} == {NoneType, TransactionError}

    await act(dsn, body)
    assert await booked(dsn) == ["alone", "one"]


async def test_two_statements_at_once_are_refused(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await asyncio.gather(connection.fetchval("SELECT pg_sleep(0.05)"), connection.fetchval("SELECT 1"))

    with pytest.raises(TransactionError, match="still running"):
        await act(dsn, body)


async def test_a_connection_is_of_no_use_after_its_block(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
        with pytest.raises(TransactionError, match="is over"):
            await insert(connection, "second")

    await act(dsn, body)
    assert await booked(dsn) == ["first"]


async def test_a_block_that_is_left_open_fails_the_call(dsn: str) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def body(context: ToolContext) -> None:
        opened = asyncio.Event()

        async def linger() -> None:
            async with context.transaction() as connection:
                await insert(connection, "first")
                opened.set()
                await asyncio.sleep(3600)

        tasks.append(asyncio.create_task(linger()))
        await opened.wait()

    with pytest.raises(TransactionError, match="await everything"):
        await act(dsn, body)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert await booked(dsn) == []


# What a tool must not do

FORBIDDEN = [
    "COMMIT",
    " ; /* a /* nested */ comment */ -- and another\n commit work",
    "ROLLBACK",
    "ABORT",
    "END",
    "BEGIN",
    "START TRANSACTION",
    "SAVEPOINT mine",
    "ROLLBACK TO SAVEPOINT moorline_block_1",
    "RELEASE SAVEPOINT moorline_block_1",
    "SET statement_timeout = 0",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET ROLE NONE",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "PREPARE mine AS SELECT 1",
    "PREPARE TRANSACTION 'mine'",
    "LISTEN mine",
    "INSERT INTO bookings VALUES ('a'); COMMIT; SELECT 1",
    "INSERT INTO bookings VALUES ('a'); SET default_transaction_read_only = on",
]


@pytest.mark.parametrize("method", ["execute", "fetch", "fetchrow", "fetchval"])
@pytest.mark.parametrize("passed_over", [False, True], ids=["raised", "passed over"])
async def test_commands_that_would_end_or_outlive_the_transaction_are_refused(
    dsn: str, method: str, passed_over: bool
) -> None:
    async def body(context: ToolContext) -> None:
        for sql in FORBIDDEN:
            with pytest.raises((TransactionError, asyncpg.PostgresSyntaxError)) as refused:
                async with context.transaction() as connection:
                    await insert(connection, sql)
                    try:
                        await getattr(connection, method)(sql)
                    except Exception:
                        if not passed_over:
                            raise
            assert passed_over <= isinstance(refused.value, TransactionError)
            assert (method == "execute") <= isinstance(refused.value, TransactionError)

    await act(dsn, body)
    assert await booked(dsn) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ';' || $$;$$ -- ; \n",
        "DO $$ BEGIN PERFORM 1; END $$;",
        "/* COMMIT */ SELECT 1;",
        "SELECT set_config('lock_timeout', '1s', true)",
        "SELECT 1 AS commit",
    ],
)
async def test_other_commands_are_not(dsn: str, sql: str) -> None:
    async def body(context: ToolContext) -> str:
        async with context.transaction() as connection:
            return await connection.execute(sql)

    assert await act(dsn, body) in ('"SELECT 1"', '"DO"')


@pytest.mark.parametrize("sql", ["SELECT 1 / 0", "SELECT * FROM no_such_table", "SELEKT", INSERT])
@pytest.mark.parametrize("effect", ["database", "none"])
async def test_an_error_that_is_passed_over_fails_its_block(dsn: str, sql: str, effect: Effect) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
            with suppress(Exception):
                await connection.execute(sql, *(["a", "b"] if sql == INSERT else []))

    with pytest.raises(TransactionError, match="went on"):
        await act(dsn, body, effect)
    assert (await booked(dsn), await results(dsn)) == ([], [])


async def test_a_statement_that_was_given_up_fails_its_block(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.fetchval("SELECT pg_sleep(5)"), 0.05)

    with pytest.raises(TransactionError, match="went on"):
        await act(dsn, body)
    assert await booked(dsn) == []


OUTLIVING = {
    "a setting": "SELECT set_config('default_transaction_read_only', 'on', false)",
    "a search path": "SELECT set_config('search_path', 'pg_temp, nowhere', false)",
    "a timeout": "SELECT set_config('statement_timeout', '1s', false)",
    "a role": "SELECT set_config('role', 'pg_monitor', false)",
    "a user": "DO $$ BEGIN SET SESSION AUTHORIZATION pg_monitor; END $$",
    "an advisory lock": "SELECT pg_advisory_lock(42)",
    "a channel": "DO $$ BEGIN LISTEN secrets; END $$",
    "a temporary table": "CREATE TEMP TABLE conversation_states (device_id text)",
    "a cursor": "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "a sequence's last value": "SELECT nextval('numbers')",
}

SESSION = {
    # asyncpg turns jit off while it looks up types, and back on.
    "settings": "SELECT name || '=' || setting FROM pg_settings WHERE source = 'session' AND name <> 'jit'",
    "user": "SELECT current_user || session_user WHERE current_user || session_user <> 'postgrespostgres'",
    "locks": "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "channels": "SELECT * FROM pg_listening_channels() AS channel",
    "tables": "SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "cursors": "SELECT name FROM pg_cursors WHERE name <> ''",
}


@pytest.mark.parametrize("fails", [False, True], ids=["committed", "rolled back"])
@pytest.mark.parametrize("what", OUTLIVING)
async def test_nothing_of_a_tool_outlives_it(dsn: str, what: str, fails: bool) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            backends.append(await connection.fetchval("SELECT pg_backend_pid()"))
            await connection.fetch(OUTLIVING[what])
            if fails:
                raise LookupError

    await execute(dsn, "CREATE SEQUENCE numbers")
    backends: list[int] = []
    async with runtime(dsn, obedient, agent=doing(body), pool_max=1) as moorline:
        # As another user the turn fails as well, because it may not write its journal.
        with pytest.raises(MoorlineError) if fails or what in ("a role", "a user") else nullcontext():
            await say(moorline, "act")
        async with moorline._backend.saver.database.connection() as connection:
            assert [await connection.fetchval("SELECT pg_backend_pid()")] == backends
            left = {name: [row[0] for row in await connection.fetch(sql)] for name, sql in SESSION.items()}
            assert left == {name: [] for name in SESSION}
            with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
                await connection.fetchval("SELECT currval('numbers')")
        assert await say(moorline, "hello") == "hello"


@pytest.fixture
def pooler(dsn: str) -> Iterator[str]:
    with pooled(dsn, connections=1) as pooler:
        yield pooler


@needs_pgbouncer
async def test_behind_a_pooler_tools_leave_nothing_either(dsn: str, pooler: str) -> None:
    async def body(context: ToolContext) -> str:
        async with context.transaction() as connection:
            await insert(connection, context.device_id)
            await connection.fetch("SELECT set_config('default_transaction_read_only', 'on', false)")
            await connection.fetch("SELECT pg_advisory_lock(42)")
            await connection.execute("DO $$ BEGIN PERFORM 1; END $$")
        with pytest.raises(LookupError):
            async with context.transaction() as connection:
                await insert(connection, "nothing")
                raise LookupError
        return "done"

    async with runtime(pooler, obedient, agent=doing(body), statement_cache_size=0) as moorline:
        for number in range(5):
            assert await say(moorline, "act", device=f"d{number}") == '"done"'
    assert await booked(dsn) == [f"d{number}" for number in range(5)]


# Time, and connections


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_transaction, "TRANSACTION_SECONDS", 0.5)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("effect", ["database", "none"])
@pytest.mark.parametrize("busy", [False, True], ids=["sleeping", "busy"])
async def test_a_transaction_ends_in_time_as_a_whole(dsn: str, effect: Effect, busy: bool) -> None:
    """None of its statements takes long."""
    ended = 0.0

    async def body(context: ToolContext) -> None:
        nonlocal ended
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with context.transaction() as connection:
                await insert(connection, "first")
                while busy:
                    await connection.fetchval("SELECT pg_sleep(0.05)")
                await asyncio.sleep(40)
        finally:
            ended = loop.time() - started

    refused = await act(dsn, body, effect)
    assert "within 0.5 s" in refused
    assert "timed_out" in refused
    assert 0.4 < ended < 5
    assert await booked(dsn) == []


@pytest.mark.usefixtures("_impatient")
async def test_what_a_tool_did_outside_beside_a_transaction_that_took_too_long_is_unknown(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction():
            await asyncio.sleep(40)

    assert "outcome_unknown" in await act(dsn, body, "outside")


@pytest.mark.usefixtures("_impatient")
async def test_the_time_between_blocks_counts(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
        await asyncio.sleep(40)

    assert "timed_out" in await act(dsn, body)
    assert await booked(dsn) == []


@pytest.mark.usefixtures("_impatient")
async def test_a_tool_that_does_not_let_itself_be_stopped_keeps_nothing(dsn: str) -> None:
    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
            try:
                await asyncio.sleep(40)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)

    assert "timed_out" in await act(dsn, body)
    assert await booked(dsn) == []


@pytest.mark.usefixtures("_impatient")
async def test_only_a_transaction_has_to_be_quick(dsn: str) -> None:
    async def body(context: ToolContext) -> str:
        await asyncio.sleep(0.6)
        with pytest.raises(LookupError):
            async with context.transaction():
                raise LookupError
        await asyncio.sleep(0.6)
        return "done"

    assert await act(dsn, body) == '"done"'


def test_a_transaction_that_begins_just_before_a_heartbeat_ends_before_the_lease() -> None:
    assert HEARTBEAT + tool_transaction.TRANSACTION_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize("effect", ["database", "none"])
async def test_tools_that_sleep_in_their_transactions_hold_up_no_other_device(dsn: str, effect: Effect) -> None:
    asleep = asyncio.Semaphore(0)

    async def body(context: ToolContext) -> None:
        async with context.transaction() as connection:
            await insert(connection, "first")
            asleep.release()
            await asyncio.sleep(40)

    loop = asyncio.get_running_loop()
    async with runtime(dsn, obedient, agent=doing(body, effect), pool_max=5, on_cancel="release") as moorline:
        sleeping = [asyncio.create_task(say(moorline, "act", device=f"d{number}")) for number in range(5)]
        for _ in range(3):
            await asleep.acquire()
        until = loop.time() + HEARTBEAT + 1.5
        took: list[float] = []
        while loop.time() < until:
            started = loop.time()
            assert await say(moorline, "hello", device=f"other-{len(took)}") == "hello"
            took.append(loop.time() - started)
            await asyncio.sleep(0.1)
        # All but one: the machine itself may stop for a moment.
        assert sorted(took)[-2] < 1
        for task in sleeping:
            task.cancel()
        await asyncio.wait(sleeping)


@pytest.mark.parametrize(("size", "tools"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)])
@pytest.mark.parametrize("given", [False, True], ids=["own pool", "caller's pool"])
async def test_tools_never_take_the_last_connections_of_a_pool(dsn: str, size: int, tools: int, given: bool) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=size) as pool:
        database = Database(pool if given else dsn, pool_size=size)
        turns = Turns(database, default_ttl=60)
        claimed = [await claim(turns, message(device=f"d{number}")) for number in range(6)]
        opened = asyncio.Semaphore(0)

        async def hold(turn: OpenTurn) -> None:
            async with turns.block(turn):
                opened.release()
                await asyncio.sleep(3600)

        holding = [asyncio.create_task(hold(turn)) for turn in claimed]
        for _ in range(tools):
            await opened.acquire()
        await asyncio.sleep(0.1)
        assert opened.locked()
        assert (await states(dsn)).count("idle in transaction") == tools
        if size > 1:
            await claim(turns, message(device="other"))
        for task in holding:
            task.cancel()
        await asyncio.wait(holding)
        await database.close()
