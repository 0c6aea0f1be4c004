"""Reading from a replica: whatever need not be of this very moment, as long as the replica is fit for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from moorline_checkpoint.database import SlowStatement
from moorline_checkpoint.recent import Recent
from moorline_migrations.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Database

STANDING_WITHIN = 2.0
"""Seconds within which a replica has to say how it stands."""

RETRY = 10.0
"""Seconds after which a replica that could not be read is tried again."""

UNREADABLE = (StoreUnavailable, SchemaMismatch, ConfigurationError, SlowStatement)
"""What a replica raises that the primary may not."""

logger = logging.getLogger("moorline.replica")

T = TypeVar("T")


class AsOf(list[T]):
    """A list that says of which moment it is."""

    def __init__(self, items: Iterable[T] = (), *, as_of: datetime | None = None) -> None:
        super().__init__(items)
        self.as_of = as_of
        """Everything that was committed by then is in it, on the database's clock. None: it comes from the primary, and
        nothing that was committed before the call is missing."""


class Unfit(Exception):
    """Why a replica is not read."""


class Readers:
    """Where reads go that may be answered by a replica; without one, or while it is down, another database's copy, or
    too far behind, to the primary. Which of both is logged once when it changes."""

    def __init__(self, primary: Database, replica: Database | None = None, *, max_lag: float = 60.0) -> None:
        """`max_lag`: seconds that the replica may be behind."""
        self._primary = primary
        self._replica = replica
        self._max_lag = timedelta(seconds=max_lag)
        self._recent = Recent()
        self._key: bytes | None = None
        self._unfit_until = 0.0
        self._told = False

    async def read(
        self, ask: Callable[[Database], Awaitable[T]], *, question: Hashable | None = None
    ) -> tuple[T, datetime | None]:
        """What `ask` returns for one of the databases, and of which moment it is; None: the primary answered. If the
        replica fails in the middle, the primary is asked again.

        With a `question`, which is equal for whatever is asked in the same way, the answer that it got within the last
        second comes from memory: the same object, which must not be changed."""
        if question is not None:
            return await self._recent.get((Readers, question), lambda: self.read(ask))
        replica, as_of = await self.fit()
        if replica is not None:
            try:
                return await ask(replica), as_of
            except UNREADABLE as error:
                self._unfit(error)
        return await ask(self._primary), None

    async def fit(self) -> tuple[Database | None, datetime | None]:
        """The replica and up to which moment it has everything, if it may be read."""
        if self._replica is None or time.monotonic() < self._unfit_until:
            return None, None
        replica = self._replica
        try:
            as_of = await self._recent.get("standing", lambda: self._standing(replica))
        except (*UNREADABLE, Unfit) as error:
            self._unfit(error)
            return None, None
        if self._told:
            self._told = False
            logger.info("The replica can be read again.")
        return replica, as_of

    async def close(self) -> None:
        """Closes the connections to the replica of the running event loop."""
        if self._replica is not None:
            await self._replica.close()

    async def _standing(self, replica: Database) -> datetime:
        try:
            async with asyncio.timeout(STANDING_WITHIN):
                (row,) = await replica.fetch("replica_standing", within=STANDING_WITHIN)
        except (TimeoutError, SlowStatement) as error:
            raise Unfit(f"it does not answer within {STANDING_WITHIN:g} s") from error
        if not row["follows"]:
            raise Unfit("it follows no other server")
        if self._key is None:
            self._key = await self._primary.fetchval("log_key")
        if row["key"] != self._key:
            raise Unfit("it is a copy of another database")
        lag = None if row["replayed"] is None else row["now"] - row["replayed"]
        if lag is not None and lag <= self._max_lag:
            return _moment(row, "replayed")
        # When nobody commits anything, the last commit is old on a replica that has everything.
        if await self._primary.fetchval("nothing_since", row["position"]):
            return _moment(row, "now")
        behind = "by an unknown time" if lag is None else f"by {lag.total_seconds():.0f} s"
        raise Unfit(f"it is behind {behind}, and {self._max_lag.total_seconds():.0f} s are allowed")

    def _unfit(self, error: Exception) -> None:
        self._unfit_until = time.monotonic() + RETRY
        if not self._told:
            self._told = True
            reason = one_line(str(error) or "it does not answer in time").replace(
                "DATABASE_URL", "MOORLINE_REPLICA_URL"
            )
            logger.warning("The replica is not read, and the primary is asked instead: %s", reason)


def _moment(row: Record, name: str) -> datetime:
    moment: datetime = row[name]
    return moment
