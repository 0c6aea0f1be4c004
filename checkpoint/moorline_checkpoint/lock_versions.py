"""Lock versions: the locks of devices with what orders them, for copies outside the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from moorline_checkpoint.packing import pack_text, unpack_text
from moorline_checkpoint.sessions import Session
from moorline_checkpoint.state_key import StateKeys

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database


@dataclass(frozen=True, kw_only=True)
class LockVersion:
    """What was read of a device's lock. Of two versions, the one with the higher fence is newer; with equal fences, the
    one that was read later. Whoever reads after it has changed a lock has a newer version than everybody who has not
    seen the change."""

    device_id: str
    fence: int | None
    """None if there is no row of the device."""
    session: Session | None
    """The live lock."""
    leads_to: str | None
    """The conversation to which the device's address leads, if not to its own; its lock is there."""
    read_at: datetime
    """By the database's clock, before anything was read."""


async def lock_versions(database: Database, device_ids: Sequence[str]) -> list[LockVersion]:
    """The versions of the devices' locks, as committed."""
    rows = await database.fetch("lock_versions", StateKeys(tuple(map(pack_text, device_ids))))
    found = {row["device_id"]: row for row in rows}
    versions = []
    for device_id in device_ids:
        row = found.get(pack_text(device_id))
        held = row is not None and row["active_agent"] is not None
        versions.append(
            LockVersion(
                device_id=device_id,
                fence=None if row is None else row["fence"],
                session=Session(device_id, row["active_agent"], row["locked_at"], row["expires_at"])
                if row is not None and held
                else None,
                leads_to=None if row is None or row["leads_to"] is None else unpack_text(row["leads_to"]),
                read_at=rows[0]["read_at"],
            )
        )
    return versions
