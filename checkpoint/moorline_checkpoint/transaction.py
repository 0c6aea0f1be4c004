"""A transaction under a turn's claim: for the turn's journal, and for what its tools do to the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.packing import pack_json, pack_text
from moorline_checkpoint.state_key import StateKey

if TYPE_CHECKING:
    from moorline_checkpoint.database import Connection, Database
    from moorline_checkpoint.turn import JournalEntry, OpenTurn

# A process that is frozen or cut off in the transaction must not hold the device's row for ever. All of it is one send:
# several commands may go together as long as they have no arguments.
BEGIN = "BEGIN; SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '10s'"


class TurnTransaction:
    """An open transaction that holds the row of the turn's device."""

    def __init__(self, database: Database, turn: OpenTurn, connection: Connection) -> None:
        self.connection = connection
        self._database = database
        self._turn = turn

    async def note(self, position: int, entries: Sequence[JournalEntry]) -> None:
        """Journals entries, the first of them at `position`; they are kept if the transaction is committed."""
        turn = self._turn
        await self.connection.execute(
            self._database.sql("journal"),
            turn.device_id,
            pack_text(turn.stored_id(turn.messages[0].id)),
            turn.turn_no,
            turn.fence,
            list(range(position, position + len(entries))),
            [entry.kind for entry in entries],
            [None if entry.agent is None else pack_text(entry.agent) for entry in entries],
            [pack_text(entry.name) for entry in entries],
            [pack_json(entry.intent) for entry in entries],
            [None if entry.result is None else pack_json(entry.result) for entry in entries],
        )
        turn.journaled = True

    async def note_result(self, position: int, result: Any) -> None:
        """Journals the result of the call at `position`."""
        await self.connection.execute(
            self._database.sql("journal_result"),
            self._turn.device_id,
            pack_text(self._turn.stored_id(self._turn.messages[0].id)),
            position,
            pack_json(result),
        )

    async def take_back(self) -> None:
        """Removes all entries, of a turn in which nothing has begun."""
        await self.connection.execute(
            self._database.sql("journal_take_back"),
            self._turn.device_id,
            pack_text(self._turn.stored_id(self._turn.messages[0].id)),
        )


@asynccontextmanager
async def turn_transaction(
    database: Database, turn: OpenTurn, *, commit: str = "COMMIT", rollback: str = "ROLLBACK"
) -> AsyncIterator[TurnTransaction]:
    """Commits when the block ends, rolls back if it raises. It locks the device's row, so that no other process claims
    the device before it ends. Raises `StaleTurn` if one already has.

    The transactions of a turn run one after another and hold no connection while they wait for each other.
    """
    async with turn.transactions, database.transaction(begin=BEGIN, commit=commit, rollback=rollback) as connection:
        if not await connection.fetchval(database.sql("hold_turn"), StateKey(turn.device_id), turn.claim_id):
            raise stale(database, turn)
        turn.row_free.clear()
        try:
            yield TurnTransaction(database, turn, connection)
        finally:
            turn.row_free.set()


def stale(database: Database, turn: OpenTurn) -> StaleTurn:
    """The error for a turn whose claim no longer stands."""
    return StaleTurn(
        f"Turn {turn.turn_no} of {database.tags.of(turn.device_id)} was taken over by another process, or its "
        "device was erased."
    )
