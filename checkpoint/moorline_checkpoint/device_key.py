"""The key of `conversation_states`: which device IDs it holds, and which of them it takes for one.

It is text, unless a backend had the table before Moorline: then it may be a uuid, be limited in length, or have a
collation that takes several spellings for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from moorline_checkpoint.devices import validate_device_id
from moorline_checkpoint.errors import InvalidDeviceID
from moorline_migrations.errors import SchemaMismatch

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Database


@dataclass(frozen=True, kw_only=True)
class _Column:
    """The column `device_id`."""

    uuid: bool
    longest: int | None
    """Characters."""
    folds: bool
    """Whether different spellings may be one row."""

    @classmethod
    def of(cls, row: Record) -> _Column:
        if row["type"] not in ("text", "character varying", "uuid"):
            raise SchemaMismatch(
                f"The column device_id of conversation_states is {row['type']}, which may take different IDs for one; "
                "make it text."
            )
        return cls(
            uuid=row["type"] == "uuid",
            # PostgreSQL's modifier of a varchar is four more.
            longest=row["modifier"] - 4 if row["modifier"] >= 0 else None,
            folds=not row["exact"],
        )


class DeviceKey:
    """Finds out once what the key of the database does with IDs, and spells them accordingly."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._column: _Column | None = None

    async def find_out(self) -> None:
        """Reads what the column is, unless that is known. Raises `StoreUnavailable`, or `SchemaMismatch` if no device
        is safe under such a key."""
        if self._column is None:
            row = await self._database.fetchrow("device_key")
            self._column = None if row is None else _Column.of(row)

    async def spelled(self, device_id: str) -> str:
        """The ID under which everything of the device is stored: if the key takes several spellings for one, that of
        the device's row. Raises `InvalidDeviceID` for an ID that the key cannot hold. Only a key that folds spellings
        costs a statement."""
        await self.find_out()
        if self._column is None:
            return device_id
        if self._column.uuid:
            return validate_device_id(device_id)
        if self._column.longest is not None and len(device_id) > self._column.longest:
            raise InvalidDeviceID(
                f"The device ID ({len(device_id)} characters) is too long for conversation_states of this database: "
                f"send at most {self._column.longest} characters, or make its column device_id text."
            )
        if self._column.folds:
            return await self._database.fetchval("spelling", device_id) or device_id
        return device_id


class admitted:  # noqa: N801 - see `damage.readable`
    """Raises `InvalidDeviceID` if the table that a backend had before refuses the row of a new device."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case asyncpg.IntegrityConstraintViolationError(table_name="conversation_states", constraint_name=str(name)):
                reason = name
            case asyncpg.IntegrityConstraintViolationError(table_name="conversation_states"):
                reason = "a constraint without a name"
            case asyncpg.StringDataRightTruncationError():
                reason = "it is too long"
            case _:
                return
        raise InvalidDeviceID(f"conversation_states does not admit the device ID ({reason}).") from error
