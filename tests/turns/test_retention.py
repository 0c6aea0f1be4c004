"""What is older than the operator wants to keep is removed; what is still needed stays."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from typer.testing import CliRunner

from moorline import Resume
from moorline.commands import app
from moorline_checkpoint import retention
from moorline_checkpoint.database import Database
from moorline_checkpoint.messages import OnBusy
from moorline_checkpoint.queue import Waiting
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turn import JournalEntry, OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import Connection, answer, begin, claim, expire_lease, message, record, statuses
from .runtimes import World, execute, runtime, say
from .test_pruning import plain_process

DAYS = 30

TABLES = ("messages", "turns", "effects", "checkpoints", "values", "writes")

LOCK = "SELECT active_agent, locked_at, session_ttl, last_active_at FROM conversation_states WHERE device_id = 'd1'"

BOOKED = JournalEntry(kind="database", name="book", intent={}, result={"value": 1})

AGE = """
    UPDATE conversation_states SET locked_at = locked_at - $2::interval, last_active_at = last_active_at - $2::interval
        WHERE device_id = $1;
    UPDATE conversation_messages SET received_at = received_at - $2::interval WHERE device_id = $1;
    UPDATE conversation_turns SET started_at = started_at - $2::interval, committed_at = committed_at - $2::interval
        WHERE device_id = $1;
    UPDATE conversation_effects SET recorded_at = recorded_at - $2::interval WHERE device_id = $1;
"""


async def age(connection: Connection, *, days: int = DAYS + 1, device: str = "d1") -> None:
    """Moves everything so far so many days into the past."""
    for statement in AGE.split(";")[:-1]:
        await connection.execute(statement, device, timedelta(days=days))


async def rows(connection: Connection, device: str = "d1") -> dict[str, int]:
    """Rows by table, of tables that have any."""
    counts = {
        table: await connection.fetchval(f"SELECT count(*) FROM conversation_{table} WHERE device_id = $1", device)  # noqa: S608
        for table in TABLES
    }
    return {table: count for table, count in counts.items() if count}


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    yield database
    await database.close()


async def test_of_a_device_out_of_use_only_the_lock_stays(dsn: str, database: Database, connection: Connection) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with runtime(dsn, world=World()) as moorline:
        for device in ("d1", "d2"):
            assert await say(moorline, "book massage", "m1", device=device) == "1: massage"
            await say(moorline, "hello", "m2", device=device)
        before = await rows(connection)
        assert set(before) >= {"messages", "turns", "effects", "checkpoints", "writes"}
        await age(connection)
        await connection.execute("UPDATE conversation_states SET session_ttl = 90 * 86400")
        locked = await connection.fetch(LOCK)

        assert await remove_older(database, days=DAYS) == sum(before.values())
        assert await rows(connection) == {}
        assert await rows(connection, "d2") == before
        assert await connection.fetch(LOCK) == locked
        assert (await moorline.session("d1")) is not None
        assert await remove_older(database, days=DAYS) == 0
        # This process had its state cached.
        reply = await say(moorline, "hello", "m1")
        assert (reply, reply.replayed, reply.turn_no) == ("1: hello", False, 3)
        assert await say(moorline, "hello", "m3", device="d2") == "3: hello"


STATES = "SELECT device_id FROM conversation_states ORDER BY device_id"


async def states(connection: Connection) -> list[str]:
    return [row["device_id"] for row in await connection.fetch(STATES)]


async def test_of_a_device_that_nobody_uses_nothing_is_left(
    dsn: str, database: Database, connection: Connection
) -> None:
    async with runtime(dsn) as moorline:
        for device in ("d1", "d2"):
            await say(moorline, "hello", "m1", device=device)
        before = await rows(connection)
        await age(connection)
        assert await remove_older(database, days=DAYS) == sum(before.values()) + 1
        assert await states(connection) == ["d2"]
        # This process had its state cached.
        reply = await say(moorline, "hello", "m1")
        assert (reply, reply.replayed, reply.turn_no) == ("1: hello", False, 1)
        assert await say(moorline, "hello", "m2") == "2: hello"


async def test_a_device_that_was_never_answered_is_forgotten_with_its_message(
    turns: Turns, database: Database, connection: Connection
) -> None:
    await claim(turns, message("running", device="d2"))
    assert await begin(turns, message("waits", device="d2")) == Waiting()
    failing = await claim(turns, message())
    await turns.release(failing, notify="m1", failure="AgentError", give_back=True)
    await age(connection)
    await remove_older(database, days=DAYS)
    assert await states(connection) == ["d2"]


@pytest.mark.parametrize(
    "theirs",
    [
        "COMMENT ON TABLE conversation_states IS 'The backend had it before'",
        "CREATE TABLE notes AS SELECT device_id FROM conversation_states;"
        "ALTER TABLE notes ADD FOREIGN KEY (device_id) REFERENCES conversation_states",
    ],
    ids=["an adopted table", "a reference"],
)
async def test_the_row_of_a_device_stays_if_it_is_somebody_elses(
    turns: Turns, database: Database, connection: Connection, theirs: str
) -> None:
    await answer(turns, message())
    await age(connection)
    await connection.execute(theirs)
    assert await remove_older(database, days=DAYS) == 2
    assert await states(connection) == ["d1"]


async def test_what_agents_of_a_device_in_use_remember_stays(
    dsn: str, database: Database, connection: Connection
) -> None:
    async with runtime(dsn) as moorline:
        for number in range(6):
            await say(moorline, "hello", f"old {number}")
        await age(connection)
        await say(moorline, "hello", "new")
        whole = (await rows(connection))["writes"]
        assert await remove_older(database, days=DAYS) == 13  # with the session that expired
        assert await statuses(connection) == {"new": ("done", 1)}
        assert [entry.record.turn_no for entry in await moorline.transcript("d1")] == [7]
        # The history is made of all of it.
        assert (await rows(connection))["writes"] == whole
    async with runtime(dsn) as moorline:
        assert await say(moorline, "hello") == "8: hello"


async def test_checkpoints_of_old_turns_go_though_the_device_is_in_use(
    dsn: str, database: Database, connection: Connection
) -> None:
    async with plain_process(dsn, 100) as moorline:
        for _ in range(6):
            await say(moorline, "hello")
        await age(connection)
        await say(moorline, "hello")
        await remove_older(database, days=DAYS)
        assert await rows(connection) == {"messages": 1, "turns": 1, "checkpoints": 1, "values": 1}
    async with plain_process(dsn, 100) as moorline:
        assert await say(moorline, "hello") == "15 messages, and you answered nothing"


async def test_a_question_can_be_answered_while_its_agent_holds_the_session(
    dsn: str, database: Database, connection: Connection
) -> None:
    async with plain_process(dsn, 100) as moorline:
        await say(moorline, "hello")
        question = (await say(moorline, "ask me", "m2")).interrupt
        assert question is not None
        await age(connection)
        await connection.execute("UPDATE conversation_states SET session_ttl = 90 * 86400")
        await remove_older(database, days=DAYS)
        assert (await say(moorline, "ask me", "m2")).replayed
        reply = await moorline.run(Resume(interrupt_id=question.id, value="yes"), {"device_id": "d1"})
        assert reply == "3 messages, and you answered yes"


async def test_a_question_whose_session_is_over_goes(dsn: str, database: Database, connection: Connection) -> None:
    async with plain_process(dsn, 100) as moorline:
        await say(moorline, "ask me")
        await age(connection)
        await remove_older(database, days=DAYS)
        assert await rows(connection) == {}
        assert await say(moorline, "hello") == "1 messages, and you answered nothing"


@pytest.mark.parametrize("crashed", [True, False])
async def test_an_open_turn_keeps_all_that_it_stands_on(
    dsn: str, turns: Turns, database: Database, connection: Connection, crashed: bool
) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", "m1")
        open_turn = await claim(turns, message("m2"))
        await age(connection)
        if crashed:
            await expire_lease(connection)
        before = await rows(connection)
        assert await remove_older(database, days=DAYS) == 0
        assert await rows(connection) == before
        if crashed:
            assert await moorline.recover() == 1
            assert [entry.record.reply for entry in await moorline.transcript("d1")] == ["1: hello", "2: m2"]
        else:
            await turns.commit(open_turn, record(open_turn))


@pytest.mark.parametrize("on_busy", ["wait", "merge"])
async def test_a_message_that_somebody_waits_with_stays_with_what_its_turn_stands_on(
    dsn: str, turns: Turns, database: Database, connection: Connection, on_busy: OnBusy
) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "hello", "m1")
        running = await claim(turns, message("m2"))
        await begin(turns, message("m3", on_busy=on_busy))
        await turns.release(running, notify="m2", failure="AgentError", give_back=False)
        await age(connection)
        before = await rows(connection)
        await remove_older(database, days=DAYS)
        # The second one has not been sent again since it failed.
        assert await statuses(connection) == {"m3": ("waiting", 0)}
        assert (await rows(connection))["checkpoints"] == before["checkpoints"]
        await connection.execute("UPDATE conversation_messages SET waiter_until = now()")
        await moorline.recover()
        assert [entry.record.reply for entry in await moorline.transcript("d1")] == ["2: m3"]


async def test_a_message_goes_with_all_that_its_tools_noted(
    turns: Turns, database: Database, connection: Connection
) -> None:
    """Delivered again it is a new message, with a new journal."""
    for attempt in range(3):
        failing = await claim(turns, message("dead"))
        async with turns.transaction(failing) as transaction:
            await transaction.note(attempt, [BOOKED])
        await turns.release(failing, notify="dead", failure="AgentError", give_back=False)
    await age(connection)
    await connection.execute("UPDATE conversation_effects SET recorded_at = now()")
    assert await remove_older(database, days=DAYS) == 4 + 1  # and the device's own row
    assert await rows(connection) == {}
    again = await claim(turns, message("dead"))
    async with turns.transaction(again) as transaction:
        await transaction.note(0, [BOOKED])
    await turns.commit(again, record(again))


async def test_it_goes_in_small_pieces_and_skips_busy_devices(
    turns: Turns, database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TURNS", 3)
    monkeypatch.setattr(retention, "BATCH", 2)
    devices = [f"d{number}" for number in range(5)]
    for device in devices:
        for number in range(7):
            await answer(turns, message(f"m{number}", device=device))
        await age(connection, device=device)
    async with connection.transaction():
        await connection.fetch("SELECT FROM conversation_states WHERE device_id = 'd2' FOR UPDATE")
        assert await remove_older(database, days=DAYS) == 4 * (14 + 1)
    assert [len(await rows(connection, device)) for device in devices] == [0, 0, 2, 0, 0]
    assert await remove_older(database, days=DAYS) == 14 + 1


async def test_turns_go_on_while_old_ones_go(turns: Turns, database: Database, connection: Connection) -> None:
    devices = [f"d{number}" for number in range(10)]
    for device in devices:
        for number in range(10):
            await answer(turns, message(f"m{number}", device=device))
        await age(connection, device=device)

    async def go_on(device: str) -> None:
        for number in range(10, 30):
            await answer(turns, message(f"m{number}", device=device))

    await asyncio.gather(*map(go_on, devices), *(remove_older(database, days=DAYS) for _ in range(5)))
    await remove_older(database, days=DAYS)
    for device in devices:
        numbers = [entry.record.turn_no for entry in await turns.transcript(device)]
        assert numbers in (list(range(11, 31)), list(range(1, 21)))  # they begin anew if the device had been forgotten


async def test_threads_of_graphs_that_take_no_turns_stay(dsn: str, database: Database, connection: Connection) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver, plain_process(dsn, 100) as moorline:
        await say(moorline, "hello", device="original")
        await saver.acopy_thread("original", "d1")
        await saver.set_session_lock("d1", "plain")
        before = await rows(connection)
        await age(connection)
        assert await remove_older(database, days=DAYS) == 0
        assert await rows(connection) == before


def test_the_command_says_how_many_rows_went_and_without_the_setting_keeps_all(dsn: str) -> None:
    async def prepare() -> None:
        database = Database(dsn)
        assert isinstance(await answer(Turns(database, default_ttl=60), message()), OpenTurn)
        await database.close()
        connection = await asyncpg.connect(dsn)
        await age(connection)
        await connection.close()

    def cleanup(**settings: str) -> str:
        result = CliRunner().invoke(app, ["cleanup"], env={"DATABASE_URL": dsn, **settings})
        assert result.exit_code == 0, result.output
        return result.stdout

    asyncio.run(prepare())
    assert cleanup() == "Cleaned up 0 expired sessions.\n"
    assert cleanup(MOORLINE_RETENTION_DAYS="40").endswith("Removed 0 rows older than 40 days.\n")
    assert cleanup(MOORLINE_RETENTION_DAYS="30").endswith("Removed 4 rows older than 30 days.\n")
