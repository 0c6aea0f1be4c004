"""Access to PostgreSQL: a pool for each event loop, deadlines, named statements, and our own errors."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import asyncpg

from moorline_checkpoint.backoff import Backoff, lost
from moorline_checkpoint.pools import LoopPool, PooledConnection, PoolUse, tool_slots
from moorline_checkpoint.state_key import keyed
from moorline_checkpoint.tags import DeviceTags
from moorline_checkpoint.watching import UNTRACED, LockWatcher, SessionWatcher, Tracing, first_word
from moorline_migrations.dsn import asyncpg_dsn
from moorline_migrations.errors import ConfigurationError, MoorlineError, StoreUnavailable, connect_errors, store_errors
from moorline_migrations.loops import PerLoop
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    from moorline_migrations.statements import Statement

ACQUIRE_TIMEOUT = 10.0
"""Seconds to wait for a connection, including the time to connect."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a server while connecting."""

STATEMENT_TIMEOUT = 20.0
"""Seconds to wait for a statement."""

DEADLOCKS = 3
"""How often a statement is sent again after the database has ended it to break a deadlock."""

TRUSTED_IDLE = 30.0
"""Seconds of wall-clock time after which an idle connection is replaced without trying it: a process that was frozen
did not notice that its sockets were closed, and monotonic clocks may have stopped with it."""

STATEMENTS = "moorline_checkpoint.sql"
"""The package whose .sql files hold the statements."""

T = TypeVar("T")


class SlowStatement(Exception):
    """A statement took longer than its caller allowed. It was broken off, and may have been done all the same."""


class Connection:
    """A connection inside a transaction. It takes SQL text and raises our own errors."""

    def __init__(self, database: Database, raw: PoolConnectionProxy[Record]) -> None:
        self._database = database
        self._raw = raw

    @property
    def in_transaction(self) -> bool:
        """Whether the transaction is still open, by the server's last word."""
        try:
            return self._raw.is_in_transaction()
        except asyncpg.InterfaceError:  # the connection is gone
            return False

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """All rows."""
        return await self._send(self._raw.fetch, sql, args)

    async def fetchrow(self, sql: str, *args: object) -> Record | None:
        """The first row."""
        return await self._send(self._raw.fetchrow, sql, args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row."""
        return await self._send(self._raw.fetchval, sql, args)

    async def execute(self, sql: str, *args: object) -> str:
        """Returns the server's command tag. Without arguments the text may hold several commands."""
        return await self._send(self._raw.execute, sql, args)

    async def execute_one(self, sql: str) -> str:
        """Like `execute` without arguments, but the server refuses a text of several commands."""

        async def prepared(sql: str, *, timeout: float) -> str:
            # Unnamed: there is nothing to close, and poolers keep nothing of it.
            statement = await self._raw.prepare(sql, name="", timeout=timeout)
            await statement.fetch(timeout=timeout)
            return statement.get_statusmsg() or ""

        return await self._send(prepared, sql, ())

    async def _send(self, method: Callable[..., Awaitable[T]], sql: str, args: tuple[object, ...]) -> T:
        with self._database.tracing.statement(self._database.name_of(sql)):
            return await self._database._send(method, sql, args)


class Database:
    """Runs named statements. It is not bound to an event loop: each loop that uses it gets a small pool of its own,
    opened at first use and closed with the loop. A pool of the caller's is used as it is and never closed.

    A connection is held for one statement or one transaction; waiting for it and for answers has deadlines. If the
    connection turns out to be lost, a repeatable statement or the start of a transaction is tried once more on one that
    was in use or made since. While the database takes no connections, asking for one fails within a second; see
    `backoff`. Every method raises `StoreUnavailable`, `SchemaMismatch` or `ConfigurationError` for what the database
    refuses.
    """

    def __init__(
        self,
        source: str | Pool[Record],
        *,
        schema: str = "public",
        pool_size: int = 5,
        statement_cache_size: int = 100,
        log_key: str | None = None,
    ) -> None:
        """`statement_cache_size=0` is for poolers in transaction mode that track no prepared statements. Device tags
        are made with `log_key` instead of the key that the database keeps."""
        self.schema = schema
        self.tags = DeviceTags(log_key)
        """The tags of devices in logs and errors; see `device_tag`."""
        self.tracing: Tracing = UNTRACED
        self.session_watchers: Sequence[SessionWatcher] = ()
        self.lock_watchers: Sequence[LockWatcher] = ()
        self._statements = load(STATEMENTS, schema)
        self._names = {statement.sql: name for name, statement in self._statements.items()}
        self._given = None if isinstance(source, str) else source
        self.given_loop: asyncio.AbstractEventLoop | None = getattr(self._given, "_loop", None)
        """The event loop of a caller's pool; nothing else may use the pool."""
        self._dsn = asyncpg_dsn(source) if isinstance(source, str) else None
        self._pool_size = pool_size
        self._statement_cache_size = statement_cache_size
        self._pools = PerLoop(self._open_pool, LoopPool.close)
        self._given_slots = None if isinstance(source, str) else tool_slots(source)
        self._backoff = Backoff()
        self._uuid_states = False

    @property
    def dsn(self) -> str | None:
        """The DSN as asyncpg takes it; None with a pool of the caller's."""
        return self._dsn

    def sql(self, name: str) -> str:
        """The text of a named statement, for a transaction."""
        return self._statements[name].sql

    def name_of(self, sql: str) -> str:
        """What `watching.Tracing` is told of a statement's text."""
        return self._names.get(sql) or first_word(sql)

    async def fetch(self, name: str, *args: object, within: float | None = None) -> list[Record]:
        """All rows of a named statement. `SlowStatement` if it takes longer than `within` seconds."""
        return await self._run(name, lambda connection: connection.fetch, args, within)

    async def fetchrow(self, name: str, *args: object) -> Record | None:
        """The first row of a named statement."""
        return await self._run(name, lambda connection: connection.fetchrow, args)

    async def fetchval(self, name: str, *args: object) -> Any:
        """The first column of the first row of a named statement."""
        return await self._run(name, lambda connection: connection.fetchval, args)

    async def execute(self, name: str, *args: object) -> None:
        """Runs a named statement that returns no rows."""
        await self._run(name, lambda connection: connection.execute, args)

    async def device_tag(self, device_id: str) -> str:
        """The device's tag; reads the key first if it is not known yet."""
        await self.prepare_tags()
        return self.tags.of(device_id)

    def lock_changed(self, device_id: str) -> None:
        """Tells whoever follows locks that the device's may be another one, or live longer, than before."""
        for watcher in self.lock_watchers:
            watcher.lock_changed(device_id)

    async def prepare_tags(self) -> None:
        """Reads the key for device tags if it is not known yet."""
        if not self.tags.ready:
            key = await self.fetchval("log_key")
            if key is None:
                raise ConfigurationError(
                    "The row `log` of moorline_keys, the key for device tags in logs, is gone: restore it from a "
                    "backup, or set MOORLINE_LOG_KEY."
                )
            self.tags.use(key)

    async def log_tag(self, device_id: str) -> str:
        """The device's tag for a log line; `untagged` if the key cannot be read, since logging must not fail."""
        with suppress(MoorlineError):
            return await self.device_tag(device_id)
        return self.tags.of(device_id)

    @asynccontextmanager
    async def transaction(
        self, *, begin: str = "BEGIN", commit: str = "COMMIT", rollback: str = "ROLLBACK"
    ) -> AsyncIterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises. Each of these commands is one send;
        a connection that does not take it is closed."""
        stack = AsyncExitStack()
        ending = _End(commit=commit, rollback=rollback)
        try:
            raw = await stack.enter_async_context(self._transaction(begin, ending))
        except StoreUnavailable as error:
            if not lost(error.__cause__):
                raise
            raw = await stack.enter_async_context(self._transaction(begin, ending, alive_at=await self._loss()))
        async with stack:
            yield Connection(self, raw)

    @asynccontextmanager
    async def tool_share(self) -> AsyncIterator[None]:
        """Waits for one of the connections that tools may hold at a time; it counts as taken while the block runs.

        Tools may take long; the rest of the pool, two connections if it has more than that, serves everybody else.
        """
        await self._pool()
        slots = self._given_slots or (await self._pools.get()).tool_slots
        async with slots:
            yield

    @asynccontextmanager
    async def connection(self, *, alive_at: float = 0.0) -> AsyncIterator[PoolConnectionProxy[Record]]:
        """asyncpg's own connection from the running loop's pool, one that was in use or made since `alive_at` (seconds
        of wall-clock time)."""
        try:
            with connect_errors():
                pool = await self._pool()
                if not pool.get_idle_size():
                    await self._backoff.pause()
                raw = await _trusted(pool, alive_at)
        except StoreUnavailable as error:
            error.reached = False
            raise
        try:
            yield raw
        finally:
            with store_errors():
                await pool.release(raw, timeout=ACQUIRE_TIMEOUT)

    def pool_use(self) -> PoolUse:
        """What the connections are doing, those of all event loops."""
        return PoolUse.of([each.pool for each in self._pools.made()] if self._given is None else [self._given])

    async def close(self) -> None:
        """Closes the running loop's pool; the others are closed with their loops."""
        await self._pools.end()

    async def _run(
        self,
        name: str,
        method: Callable[[PoolConnectionProxy[Record]], Callable[..., Awaitable[T]]],
        args: tuple[object, ...],
        within: float | None = None,
    ) -> T:
        statement = self._statements[name]
        reached, deadlocks, alive_at = False, 0, 0.0
        with self.tracing.statement(name):
            while True:
                try:
                    return await self._once(statement, method, args, within, alive_at=alive_at)
                except StoreUnavailable as error:
                    error.reached = reached = reached or error.reached
                    # Its statement was a transaction of its own, so nothing of it was done.
                    if isinstance(error.__cause__, asyncpg.DeadlockDetectedError) and deadlocks < DEADLOCKS:
                        deadlocks += 1
                    elif statement.repeatable and not alive_at and lost(error.__cause__):
                        alive_at = await self._loss()
                    else:
                        raise

    @asynccontextmanager
    async def _transaction(
        self, begin: str, end: _End, *, alive_at: float = 0.0
    ) -> AsyncIterator[PoolConnectionProxy[Record]]:
        async with self.connection(alive_at=alive_at) as raw:
            await _in_time(lambda: raw.execute(begin))
            try:
                yield raw
            except BaseException:
                with suppress(MoorlineError):
                    await _end(raw, end.rollback)
                raise
            with self.tracing.statement("COMMIT"):
                await _end(raw, end.commit)

    async def _loss(self) -> float:
        """When a connection was lost, which is now; for `connection`."""
        if self._given is not None:  # its connections do not tell when they were in use
            await self._given.expire_connections()
        return time.time()

    async def _once(
        self,
        statement: Statement,
        method: Callable[[PoolConnectionProxy[Record]], Callable[..., Awaitable[T]]],
        args: tuple[object, ...],
        within: float | None,
        *,
        alive_at: float = 0.0,
    ) -> T:
        async with self.connection(alive_at=alive_at) as raw:
            return await self._send(method(raw), statement.sql, args, within)

    async def _send(
        self, method: Callable[..., Awaitable[T]], sql: str, args: tuple[object, ...], within: float | None = None
    ) -> T:
        with store_errors():
            try:
                return await method(
                    sql, *keyed(args, uuid_states=self._uuid_states), timeout=within or STATEMENT_TIMEOUT
                )
            except TimeoutError as error:
                if within is None:
                    raise
                raise SlowStatement from error
            except asyncpg.DataError:
                # asyncpg refuses an argument before anything is sent. If the statement takes NULL in place of the key,
                # the key was to blame.
                keys = keyed(args, uuid_states=True)
                if keys == keyed(args, uuid_states=self._uuid_states):
                    raise
            result = await method(sql, *keys, timeout=STATEMENT_TIMEOUT)
            self._uuid_states = True
            return result

    async def _pool(self) -> Pool[Record]:
        return (await self._pools.get()).pool if self._given is None else self._given

    async def _open_pool(self) -> LoopPool:
        pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._pool_size,
            max_inactive_connection_lifetime=TRUSTED_IDLE,
            connect=self._backoff.connect,
            connection_class=PooledConnection,
            timeout=CONNECT_TIMEOUT,
            command_timeout=STATEMENT_TIMEOUT,
            statement_cache_size=self._statement_cache_size,
        )
        return LoopPool(pool, tool_slots(pool))


async def _trusted(pool: Pool[Record], alive_at: float) -> PoolConnectionProxy[Record]:
    while True:
        raw = await pool.acquire(timeout=ACQUIRE_TIMEOUT)
        released_at: float | None = getattr(raw, "released_at", None)
        if released_at is None or released_at >= max(alive_at, time.time() - TRUSTED_IDLE):
            return raw
        raw.terminate()
        await pool.release(raw)


class _End(NamedTuple):
    """How a transaction ends."""

    commit: str
    rollback: str


async def _end(raw: PoolConnectionProxy[Record], commands: str) -> None:
    try:
        await _in_time(lambda: raw.execute(commands))
    except BaseException:
        # Whatever it was in the middle of, nobody else must get it.
        with suppress(asyncpg.InterfaceError):
            raw.terminate()
        raise


async def _in_time(step: Callable[[], Awaitable[object]]) -> None:
    with store_errors():
        async with asyncio.timeout(STATEMENT_TIMEOUT):
            await step()  # if the connection is closed, the call itself raises
