"""What operators ask of an open `Moorline`: figures, how long a person's sessions live, and a cleanup."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, overload

from moorline.cleanup import CleanedUp, clean_up
from moorline.errors import only_ours
from moorline.part import Part
from moorline.since import Since, since_in
from moorline.stats import Stats, stats_of
from moorline_checkpoint.figures import Figures, figures
from moorline_checkpoint.statistics import Statistics, statistics

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

STATS_WITHIN = 2.0
"""Seconds that statistics may take."""


class Upkeep(Part):
    """Upkeep of a `Moorline`."""

    @overload
    async def stats(self) -> Statistics: ...
    @overload
    async def stats(self, *, since: Since) -> Stats: ...

    async def stats(self, *, since: Since | None = None) -> Statistics | Stats:
        """What all devices together are doing right now: sessions by agent, and messages that wait. Raises
        `StoreUnavailable` if the database does not say so within 2 s.

        With `since` also what they have done: sessions, turns, people, tokens and, by `MOORLINE_PRICES`, money, since
        the beginning of the UTC day of a moment, or of so long ago (`"7d"`, a date, a `datetime`, a `timedelta`).
        Raises `ConfigurationError` for what can be no such time.

        May come from a replica (`as_of`, of the statistics); asked again within a second, it says the same again."""
        with only_ours():
            moment = None if since is None else since_in(since)

            async def ask(database: Database) -> tuple[Statistics, Figures | None]:
                now = await statistics(database, within=STATS_WITHIN)
                return now, None if moment is None else await figures(database, moment)

            (now, found), as_of = await self._backend.readers.read(ask, question=("stats", moment))
            now = replace(now, as_of=as_of)
            return now if found is None else stats_of(now, found, self.settings.prices)

    async def set_ttl(self, device_id: str, seconds: int | None) -> None:
        """How many seconds after the last activity the sessions of this person end from now on, the present one
        included, whatever their agents say; None: as the agents say. What a call asked for when it set the lock comes
        before. Raises `ConfigurationError` unless it is a positive whole number."""
        with only_ours():
            await self._backend.saver.set_person_ttl(await self._device(device_id), seconds)

    async def clean_up(self, *, pause: float = 0.0) -> CleanedUp | None:
        """Drops expired locks, which count for nothing already, counts turns for the figures, and removes what is older
        than `MOORLINE_RETENTION_DAYS`. None, and nothing is done, if another process is at it, or if the last cleanup
        began less than `pause` seconds ago."""
        with only_ours():
            return await clean_up(self._backend, retention_days=self.settings.retention_days, pause=pause)
