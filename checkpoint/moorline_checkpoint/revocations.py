"""Revocations: from which generation on the tokens of a device are accepted.

Issuing and checking tokens is left to whoever has them; this is what all processes have to know of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from moorline_migrations.errors import ConfigurationError

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

LIFETIME_DAYS = 90
"""Days for which a token is accepted at most."""

KEPT_DAYS = LIFETIME_DAYS + 1
"""Days after which a revocation refuses no token that has not expired."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What is accepted of a device at this moment."""

    generation: int
    """Tokens of this generation and of later ones."""
    now: float
    """Seconds since the epoch, by the database's clock."""


class Revocations:
    """The revocations of one database. A device appears in them as a keyed hash only.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key: bytes | None = None

    async def key(self) -> bytes:
        """The secret for tokens that the database keeps, the same for all processes."""
        if self._key is None:
            self._key = await self._database.fetchval("token_key")
        if self._key is None:
            raise ConfigurationError(
                "The row `token` of moorline_keys, the key for device tokens, is gone: restore it."
            )
        return self._key

    async def accepted(self, device_id: str) -> Accepted:
        """Which tokens of the device are accepted; one look-up in an index."""
        row = await self._database.fetchrow("generation", await self._hash(device_id))
        assert row is not None  # noqa: S101 - it has no FROM
        return Accepted(generation=row["generation"], now=row["now"])

    async def revoke(self, device_id: str) -> None:
        """Refuses all tokens of the device that were issued until now, in every process, for good."""
        await self._database.execute("revoke", await self._hash(device_id))

    async def forget_old(self) -> int:
        """Removes revocations whose tokens have all expired, and returns how many there were."""
        return int(await self._database.fetchval("forget_revocations", float(KEPT_DAYS)))

    async def _hash(self, device_id: str) -> bytes:
        return blake2b(device_id.encode(), key=await self.key(), digest_size=16, person=b"revocation").digest()
