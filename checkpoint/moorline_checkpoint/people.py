"""People: the devices that lead to one conversation, and the codes by which a device joins that of another.

That a device joins takes its turn in the device's queue: see `IncomingMessage.joins`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from hmac import digest
from typing import TYPE_CHECKING, Any

from moorline_checkpoint.erasure import erasing
from moorline_checkpoint.packing import load_json, pack_text, unpack_text

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

CODE_SECONDS = 600.0
"""Seconds for which a code can be used."""

TRIES_SECONDS = 3600.0
"""Seconds for which failed tries are counted, from the first one on."""

MOST_TRIES = {"device": 10, "address": 30, "all": 1000}
"""How many tries may fail in that time: of one device, from one network address, and in all. With 40 random bits in a
code and a thousand codes in use, one in a million hours then finds one by guessing."""


@dataclass(frozen=True, kw_only=True)
class LinkedDevice:
    """A device that leads to a conversation."""

    device_id: str
    linked_at: datetime | None
    """When it joined; None for the device whose own conversation it is."""


@dataclass(frozen=True, kw_only=True)
class Redeemed:
    """What came of a code."""

    conversation: str | None = None
    """Where it leads, if it was right and is used up now."""
    same: bool = False
    """Whether it was right, but the device leads there already."""
    retry_after: float | None = None
    """Seconds after which it may be tried, if too many tries have failed."""


class People:
    """The devices and people of one database.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    def __init__(self, database: Database, *, key: Callable[[], Coroutine[Any, Any, bytes]], default_ttl: int) -> None:
        """`key` gives the secret with which codes are hashed. `default_ttl` seconds is the session TTL of a new
        conversation."""
        self._database = database
        self._key = key
        self._default_ttl = default_ttl

    async def new_code(self, device_id: str, code: str) -> None:
        """Lets the code lead to the device's conversation for `CODE_SECONDS`, once. It replaces the one before, and
        only its keyed hash is stored."""
        await self._database.execute(
            "new_code", device_id, await self._hash("code", code), CODE_SECONDS, self._default_ttl
        )

    async def redeem(self, device_id: str, code: str, *, address: str | None) -> Redeemed:
        """Uses the code up. A failed try is counted for the device, the network address and in all."""
        names = {"device": device_id, "address": address, "all": ""}
        counted = [kind for kind, name in names.items() if name is not None]
        hashes = [await self._hash(kind, str(names[kind])) for kind in counted]
        bounds = [MOST_TRIES[kind] for kind in counted]
        hashed = await self._hash("code", code)
        found = load_json(await self._database.fetchval("redeem", device_id, hashed, hashes, bounds, TRIES_SECONDS))
        return Redeemed(
            conversation=found.get("conversation"),
            same=found["outcome"] == "same",
            retry_after=found.get("retry_after"),
        )

    async def leaving(self, device_id: str) -> str | None:
        """The conversation to which the device leads once it has left the one that it shares: its own, or a new one if
        that is somebody else's by now. None if it shares none."""
        found = await self._database.fetchval("leaving", device_id, self._default_ttl)
        return None if found is None else str(found)

    async def devices(self, device_id: str) -> tuple[LinkedDevice, ...]:
        """The devices that lead to the device's conversation, in the order in which they joined it."""
        rows = await self._database.fetch("devices", device_id)
        return tuple(LinkedDevice(device_id=unpack_text(row["device_id"]), linked_at=row["linked_at"]) for row in rows)

    async def erase_device(self, device_id: str) -> bool:
        """Removes everything of the device's own; what it said in a conversation that it shares stays there, without
        its name. Returns whether there was anything. Raises `ErasureFailed` like `DeviceCheckpointer.erase`."""
        return bool(await self._erase("erase_device", device_id))

    async def erase_person(self, device_id: str) -> tuple[str, ...]:
        """Removes the device's conversation and all devices that lead to it, each as `erase_device` does, and returns
        them; none if there was nothing."""
        return tuple(map(unpack_text, await self._erase("erase_person", device_id)))

    async def forget_old(self) -> int:
        """Removes codes and counts of tries that have expired, and returns how many there were."""
        return int(await self._database.fetchval("forget_codes"))

    async def _erase(self, statement: str, device_id: str) -> Any:
        with erasing():
            return await self._database.fetchval(statement, pack_text(device_id), self._default_ttl)

    async def _hash(self, kind: str, text: str) -> bytes:
        derived = digest(await self._key(), f"moorline link {kind}".encode(), "sha256")
        return digest(derived, text.encode(), "sha256")
