"""Event loops, lost connections, deadlines, and our own errors."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from moorline_checkpoint import database as database_module
from moorline_checkpoint.database import Database
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from tests.checkpoint.checkpoints import config, put


async def backends(dsn: str) -> int:
    """The number of connections to the test's database, besides the one that asks."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    finally:
        await connection.close()


async def turn(saver: DeviceCheckpointer, thread: str) -> int:
    """Adds one to the thread's count and returns it."""
    found = await saver.aget_tuple(config(thread))
    counted = found.checkpoint["channel_values"]["n"] if found else 0
    await put(saver, found.config if found else config(thread), {"n": counted + 1})
    return int(counted) + 1


def test_a_checkpointer_serves_one_event_loop_after_another(dsn: str) -> None:
    saver = DeviceCheckpointer.from_conn_string(dsn)

    assert [asyncio.run(turn(saver, "device")) for _ in range(4)] == [1, 2, 3, 4]


def test_connections_close_with_their_loop(dsn: str) -> None:
    saver = DeviceCheckpointer.from_conn_string(dsn)
    asyncio.run(turn(saver, "device"))

    asyncio.run(no_backends(dsn))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_without_goodbye_is_let_go(dsn: str) -> None:
    saver = DeviceCheckpointer.from_conn_string(dsn)
    for counted in (1, 2, 3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(turn(saver, "device")) == counted
        loop.close()

    assert asyncio.run(turn(saver, "device")) == 4
    del loop
    gc.collect()


def test_loops_in_several_threads_share_a_checkpointer(dsn: str) -> None:
    saver = DeviceCheckpointer.from_conn_string(dsn)
    counted: dict[str, int] = {}

    def converse(thread: str) -> None:
        async def turns() -> None:
            for _ in range(5):
                counted[thread] = await turn(saver, thread)

        asyncio.run(turns())

    threads = [threading.Thread(target=converse, args=(f"thread-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted == {f"thread-{n}": 5 for n in range(8)}


def test_connections_are_opened_at_first_use_and_few(dsn: str) -> None:
    async def many() -> tuple[int, int]:
        async with DeviceCheckpointer.from_conn_string(dsn, pool_size=3) as saver:
            before = await backends(dsn)
            await asyncio.gather(
                *(turn(saver, f"thread-{n}") for n in range(20)), *(saver.get_session_lock(f"d{n}") for n in range(20))
            )
            return before, await backends(dsn)

    assert asyncio.run(many()) == (0, 3)


async def no_backends(dsn: str) -> None:
    while await backends(dsn):  # noqa: ASYNC110 - the server cannot call us
        await asyncio.sleep(0.01)


def freeze_until_connections_are_lost(dsn: str) -> None:
    """Blocks the event loop while the server drops its connections, so that the loop has not noticed."""

    async def drop() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        await no_backends(dsn)

    thread = threading.Thread(target=lambda: asyncio.run(drop()))
    thread.start()
    thread.join()


async def test_reads_and_puts_survive_that_the_server_dropped_every_connection(
    dsn: str, saver: DeviceCheckpointer
) -> None:
    stored = await put(saver, config("device"), {"n": 1})
    await asyncio.gather(*(saver.aget_tuple(stored) for _ in range(20)))
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: saver.aget_tuple(stored),
        lambda: put(saver, stored, {"n": 2}),
        lambda: saver.aput_writes(stored, [("n", 3)], "task"),
        lambda: saver.get_session_lock("device"),
    ]
    for call in calls:
        freeze_until_connections_are_lost(dsn)
        await call()


async def test_what_may_not_be_repeated_is_not(dsn: str, saver: DeviceCheckpointer) -> None:
    await saver.set_session_lock("device", "scheduling")
    freeze_until_connections_are_lost(dsn)

    with pytest.raises(StoreUnavailable):
        await saver.clear_session_lock("device")
    assert await saver.clear_session_lock("device")


async def test_a_connection_that_slept_is_replaced_without_being_tried(
    dsn: str, saver: DeviceCheckpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pid() -> int:
        async with saver.database.connection() as connection:
            return connection.get_server_pid()

    first = await pid()
    assert await pid() == first
    later = time.time() + database_module.TRUSTED_IDLE + 1
    monkeypatch.setattr("time.time", lambda: later)
    assert await pid() != first
    assert await backends(dsn) == 1


async def test_waiting_for_a_connection_ends(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "ACQUIRE_TIMEOUT", 0.2)
    async with DeviceCheckpointer.from_conn_string(dsn, pool_size=1) as saver:
        async with saver.database.connection():
            with pytest.raises(StoreUnavailable):
                await saver.aget_tuple(config("device"))
        assert await saver.aget_tuple(config("device")) is None


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "ACQUIRE_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        dsn = f"postgresql://postgres@127.0.0.1:{mute.getsockname()[1]}/postgres"
        async with DeviceCheckpointer.from_conn_string(dsn) as saver:
            with pytest.raises(StoreUnavailable):
                await saver.aget_tuple(config("device"))


async def test_waiting_for_an_answer_ends(
    dsn: str,
    saver: DeviceCheckpointer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await saver.set_session_lock("device", "scheduling")
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT", 0.2)
    async with connection.transaction(), asyncio.timeout(10):
        await connection.execute("SELECT 1 FROM conversation_states FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            await saver.clear_session_lock("device")
    assert await saver.get_session_lock("device") == "scheduling"


async def test_a_transaction_is_whole_or_nothing(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    insert = "INSERT INTO conversation_states (device_id) VALUES ($1)"

    async def insert_and(outcome: Exception | None) -> None:
        async with saver.database.transaction() as transaction:
            await transaction.execute(insert, "device")
            assert await transaction.fetchval("SELECT device_id FROM conversation_states") == "device"
            if outcome is not None:
                raise outcome

    with pytest.raises(LookupError):
        await insert_and(LookupError())
    assert await connection.fetchval("SELECT count(*) FROM conversation_states") == 0
    await insert_and(None)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_and(None)
    assert await connection.fetchval("SELECT count(*) FROM conversation_states") == 1


async def test_a_caller_that_gives_up_leaves_the_connection_usable(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock("device", "scheduling")
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM conversation_states FOR UPDATE")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(saver.clear_session_lock("device"), 0.1)
    assert await saver.get_session_lock("device") == "scheduling"


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with DeviceCheckpointer.from_conn_string(f"postgresql://u@127.0.0.1:{port}/d") as saver:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await saver.aget_tuple(config("device"))


async def test_a_database_without_the_tables_is_told_what_to_run(empty_dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(empty_dsn) as saver:
        with pytest.raises(SchemaMismatch, match="moorline migrate"):
            await saver.aget_tuple(config("device"))


async def test_a_dsn_that_cannot_be_read_is_a_mistake_of_configuration() -> None:
    async with DeviceCheckpointer.from_conn_string("postgresql://u:p@host:not-a-port/d") as saver:
        with pytest.raises(ConfigurationError, match="DATABASE_URL"):
            await saver.aget_tuple(config("device"))


def test_a_schema_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        DeviceCheckpointer.from_conn_string("postgresql://", schema='"; DROP')


async def test_sqlalchemys_spelling_connects(dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn.replace("postgresql://", "postgresql+asyncpg://")) as saver:
        assert await turn(saver, "device") == 1


@asynccontextmanager
async def counted_sends(dsn: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A DSN through a proxy, and a list that grows by the size of each message to the server."""
    folder = parse_qs(urlsplit(dsn).query)["host"][0]
    sends: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[int]) -> None:
        try:
            while data := await reader.read(1 << 20):
                seen.append(len(data))
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        await asyncio.gather(relay(reader, server_writer, sends), relay(server_reader, writer, []))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://postgres@127.0.0.1:{port}{urlsplit(dsn).path}", sends


@pytest.mark.parametrize(("statement_cache_size", "expected"), [(100, 1), (0, 2)])
async def test_a_statement_is_one_send_on_a_warm_connection(dsn: str, statement_cache_size: int, expected: int) -> None:
    async with (
        counted_sends(dsn) as (proxied, sends),
        DeviceCheckpointer.from_conn_string(proxied, pool_size=1, statement_cache_size=statement_cache_size) as saver,
    ):
        stored = await put(saver, config("device"), {"n": 1})
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: put(saver, stored, {"n": 2}),
            lambda: saver.aput_writes(stored, [("n", 3)], "task"),
            lambda: saver.aget_tuple(stored),
            lambda: saver.get_session_lock("device"),
        ]
        for call in calls:
            await call()
            before = len(sends)
            await call()
            assert len(sends) - before == expected


async def test_a_pooler_that_loses_prepared_statements_is_named(dsn: str, saver: DeviceCheckpointer) -> None:
    """Does by hand what a pooler in transaction mode does to them."""
    database: Database = saver.database
    await saver.aget_tuple(config("device"))
    async with database.connection() as connection:
        await connection.execute("DEALLOCATE ALL")

    with pytest.raises(ConfigurationError, match="statement_cache_size"):
        await saver.aget_tuple(config("device"))
