"""What tools do to the database: blocks of statements, each kept completely or not at all, in a transaction under the
turn's claim that outlives neither the call nor the lease.

A tool's code is not ours. It may go on after an error, end the transaction, change settings of the session, or take
long: none of that may affect the turn's journal, other turns, or the next user of the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from moorline_checkpoint.errors import TransactionError, TransactionTooLong
from moorline_checkpoint.tool_commands import check_command, is_one_command
from moorline_checkpoint.transaction import turn_transaction
from moorline_migrations.errors import StoreUnavailable

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Connection, Database
    from moorline_checkpoint.transaction import TurnTransaction
    from moorline_checkpoint.turn import JournalEntry, OpenTurn

TRANSACTION_SECONDS = 8.0
"""Seconds that a tool may hold its transaction. Together with the time between two heartbeats this is less than the
lease, so a turn that is alive is not taken over."""

# Resets everything that a session keeps beyond its transaction, however a tool may have changed it. `RESET ALL` comes
# early: it resets a timeout that the rest might run into.
RESET = (
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
COMMIT, ROLLBACK = f"COMMIT; {RESET}", f"ROLLBACK; {RESET}"

T = TypeVar("T")


class ToolConnection:
    """The connection that a tool gets in a block. Errors that are the store's fault are ours, others asyncpg's."""

    def __init__(self, block: _Block) -> None:
        self._block = block

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """All rows."""
        return await self._block.run(lambda connection: connection.fetch(sql, *args), sql)

    async def fetchrow(self, sql: str, *args: object) -> Record | None:
        """The first row."""
        return await self._block.run(lambda connection: connection.fetchrow(sql, *args), sql)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row."""
        return await self._block.run(lambda connection: connection.fetchval(sql, *args), sql)

    async def execute(self, sql: str, *args: object) -> str:
        """The server's command tag."""
        if args or is_one_command(sql):
            return await self._block.run(lambda connection: connection.execute(sql, *args), sql)
        return await self._block.run(lambda connection: connection.execute_one(sql), sql)


class ToolTransaction:
    """The transaction of one call of a tool, made by `tool_transaction`.

    It begins with the first block, which needs no savepoint: if that raises, everything is rolled back, and the next
    block begins a new one. Blocks after the first or inside another are savepoints.
    """

    def __init__(self, database: Database, turn: OpenTurn, deadline: asyncio.Timeout) -> None:
        self.turn = turn
        self._database = database
        self._deadline = deadline
        self._stack = AsyncExitStack()
        self._open: TurnTransaction | None = None
        self._blocks: list[_Block] = []
        self.over = False
        """Whether no more blocks may be opened."""
        self._busy = False

    @asynccontextmanager
    async def block(self) -> AsyncIterator[ToolConnection]:
        """The block's statements are kept with the whole transaction if it ends normally, and rolled back if it raises.

        Raises `TransactionError` if another block is open that is not around this one, and at the end of the block if a
        statement failed and the error was swallowed.
        """
        outer = _innermost.get()
        self._check_may_open(outer)
        block = _Block(self)
        self._blocks.append(block)
        _innermost.set(block)
        try:
            savepoint = await self._enter()
            try:
                yield ToolConnection(block)
                block.check()
                if savepoint is not None:
                    await self.connection.execute(f"RELEASE SAVEPOINT {savepoint}")
            except BaseException as error:
                await self._undo(savepoint, error)
                raise
        finally:
            block.over = True
            self._blocks.remove(block)
            _innermost.set(outer)

    async def commit(self, position: int = 0, entries: Sequence[JournalEntry] = ()) -> None:
        """Commits what the blocks did, together with journal entries, the first of them at `position`. If no block left
        anything, the entries get a transaction of their own, so that no tool's time counts in it."""
        if self._blocks:
            raise TransactionError("The tool ended before its transaction did: await everything that uses it.")
        self.over = True
        self._check_in_time()
        if self._open is None:
            if entries:
                async with turn_transaction(self._database, self.turn) as transaction:
                    await transaction.note(position, entries)
            return
        if entries:
            await self._open.note(position, entries)
            self._check_in_time()
        self._deadline.reschedule(None)  # a commit that is under way is not cut off
        self._open = None
        await self._stack.aclose()

    async def roll_back(self, error: BaseException) -> None:
        """Rolls back what is open; `error` is why."""
        self._open = None
        for block in self._blocks:
            block.failure = block.failure or error
        if not self._deadline.expired():
            self._deadline.reschedule(None)
        stack = self._stack.pop_all()
        await stack.__aexit__(type(error), error, error.__traceback__)

    @property
    def connection(self) -> Connection:
        """The connection of the open transaction."""
        if self._open is None:
            raise TransactionError("The transaction was rolled back: leave the block.")
        return self._open.connection

    async def run(self, send: Callable[[Connection], Awaitable[T]], sql: str) -> T:
        """Sends a statement of a tool. The innermost block remembers an error, because the transaction would have to go
        back to that block's savepoint."""
        innermost = self._blocks[-1]
        try:
            return await self._run(send, sql)
        except BaseException as error:
            innermost.failure = error
            raise

    async def _run(self, send: Callable[[Connection], Awaitable[T]], sql: str) -> T:
        if self._busy:
            raise TransactionError("A statement of this transaction is still running: await them one after another.")
        check_command(sql)
        self._check_in_time()
        self._busy = True
        try:
            result = await send(self.connection)
        except asyncpg.PostgresSyntaxError as error:
            if is_one_command(sql):
                raise
            raise TransactionError(f"A tool's transaction takes one command at a time ({error}).") from error
        except StoreUnavailable as error:
            # Arguments that do not fit are the tool's mistake, not the store's, though asyncpg raises the same error.
            if isinstance(error.__cause__, asyncpg.InterfaceError) and self.connection.in_transaction:
                raise error.__cause__ from None
            raise
        finally:
            self._busy = False
        if not self.connection.in_transaction:
            raise TransactionError("The transaction was ended from within; only its block does that.")
        return result

    async def _begin(self) -> TurnTransaction:
        self._check_in_time()
        stack = AsyncExitStack()
        try:
            await stack.enter_async_context(self._database.tool_share())
            transaction = turn_transaction(self._database, self.turn, commit=COMMIT, rollback=ROLLBACK)
            self._open = await stack.enter_async_context(transaction)
        except BaseException:
            await stack.aclose()
            raise
        self._stack = stack
        self._deadline.reschedule(asyncio.get_running_loop().time() + TRANSACTION_SECONDS)
        return self._open

    async def _enter(self) -> str | None:
        """Begins the transaction, or a savepoint in it, and returns the savepoint's name."""
        if self._open is None:
            await self._begin()
            return None
        savepoint = f"moorline_block_{len(self._blocks)}"
        await self.connection.execute(f"SAVEPOINT {savepoint}")
        return savepoint

    async def _undo(self, savepoint: str | None, error: BaseException) -> None:
        if self._open is None:
            return
        if savepoint is not None:
            try:
                sql = f"ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}"
                await self._open.connection.execute(sql)
            except (StoreUnavailable, asyncpg.PostgresError):
                savepoint = None
        if savepoint is None:
            await self.roll_back(error)

    def _check_may_open(self, outer: _Block | None) -> None:
        if self.over:
            raise TransactionError("The tool has ended, and its transaction with it.")
        if self._blocks and self._blocks[-1] is not outer:
            raise TransactionError(
                "Another block of this tool's transaction is open: await blocks one after another, or open one within "
                "the other."
            )

    def _check_in_time(self) -> None:
        if self._deadline.expired():
            raise TransactionTooLong(TRANSACTION_SECONDS)


class _Block:
    """A block while it is open."""

    def __init__(self, transaction: ToolTransaction) -> None:
        self.transaction = transaction
        self.failure: BaseException | None = None
        """What a statement raised; if the tool swallows it, nothing of the block can be kept."""
        self.over = False

    async def run(self, send: Callable[[Connection], Awaitable[T]], sql: str) -> T:
        if self.over:
            raise TransactionError("The block that this connection belongs to is over: open another.")
        return await self.transaction.run(send, sql)

    def check(self) -> None:
        """Raises an error that was swallowed."""
        if isinstance(self.failure, StoreUnavailable | TransactionError):
            raise self.failure
        if self.failure is not None:
            raise TransactionError(
                "A statement failed and the tool went on, but nothing of its block can be kept. Let the error out of "
                "the block, or put what may fail into a block of its own."
            ) from self.failure


_innermost: ContextVar[_Block | None] = ContextVar("moorline_innermost_block", default=None)


@asynccontextmanager
async def tool_transaction(database: Database, turn: OpenTurn) -> AsyncIterator[ToolTransaction]:
    """The transaction of a call: rolled back if the block raises or ends without committing it.

    When the transaction has been open for `TRANSACTION_SECONDS`, the task that runs the block is cancelled, and the
    block raises `TransactionTooLong`.
    """
    deadline = asyncio.timeout(None)
    transaction = ToolTransaction(database, turn, deadline)
    try:
        async with deadline:
            try:
                yield transaction
            except BaseException as error:
                await transaction.roll_back(error)
                raise
            finally:
                transaction.over = True
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise TransactionTooLong(TRANSACTION_SECONDS) from error


@asynccontextmanager
async def own_block(database: Database, turn: OpenTurn) -> AsyncIterator[ToolConnection]:
    """A block that is committed when it ends; if the running code is already in a block of the turn, a block inside
    that one."""
    outer = _innermost.get()
    if outer is not None and not outer.over and outer.transaction.turn is turn:
        async with outer.transaction.block() as connection:
            yield connection
        return
    async with tool_transaction(database, turn) as transaction:
        async with transaction.block() as connection:
            yield connection
        await transaction.commit()
