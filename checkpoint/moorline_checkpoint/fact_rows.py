"""The rows of facts: what a store reads and writes of one device."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from moorline_checkpoint.batcher import Batcher
from moorline_checkpoint.facts import Change, Name, in_order
from moorline_checkpoint.packing import load_json, pack_json, pack_text

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Database

MEMBERS = 100
"""The most calls that go out together."""


class Kept(NamedTuple):
    """A fact as it stands."""

    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: float | None = None


class FactRows:
    """The facts of one device, by their names. Facts that have expired are left out if only live ones are wanted."""

    def __init__(self, database: Database, device: str) -> None:
        self.database = database
        self._device = device

    async def get(self, names: tuple[Name, ...], *, live_only: bool) -> dict[Name, Kept]:
        """Those of the facts that are there."""
        rows = await self.database.fetch(
            "get_facts",
            self._device,
            [pack_text(namespace) for namespace, _ in names],
            [pack_text(key) for _, key in names],
            live_only,
        )
        return {
            names[row["place"] - 1]: Kept(load_json(row["value"]), row["created_at"], row["updated_at"], row["ttl"])
            for row in rows
        }

    async def find(self, statement: str, *asked: Any) -> Sequence[Record]:
        """The rows of a search or a listing, which is asked this of the device's facts."""
        return await self.database.fetch(statement, self._device, *asked)

    async def keep(self, changes: Sequence[Change], *, live_only: bool) -> None:
        """Stores what was read and written, all of it or nothing; the last write of a fact counts."""
        await self.database.execute("keep_facts", self._device, pack_json(in_order(changes)), live_only)


class _Get(NamedTuple):
    names: tuple[Name, ...]
    live_only: bool


class _Find(NamedTuple):
    statement: str
    asked: tuple[Any, ...]


class _Keep(NamedTuple):
    changes: tuple[Change, ...]
    live_only: bool


class GroupedRows(FactRows):
    """What many tasks ask at the same moment goes out together: reads and writes as one statement each, and a search
    that several ask once."""

    def __init__(self, database: Database, device: str) -> None:
        super().__init__(database, device)
        self._gets = self._batcher(self._get_all, "get_facts")
        self._finds = self._batcher(self._find_all, "search_facts")
        self._keeps = self._batcher(self._keep_all, "keep_facts")

    async def get(self, names: tuple[Name, ...], *, live_only: bool) -> dict[Name, Kept]:
        found: dict[Name, Kept] = await self._gets.answer(_Get(names, live_only))
        return found

    async def find(self, statement: str, *asked: Any) -> Sequence[Record]:
        found: Sequence[Record] = await self._finds.answer(_Find(statement, asked))
        return found

    async def keep(self, changes: Sequence[Change], *, live_only: bool) -> None:
        await self._keeps.answer(_Keep(tuple(changes), live_only))

    def _batcher(self, send: Any, statement: str) -> Batcher[Any, Any]:
        return Batcher(
            send,
            key=lambda _: self._device,
            traced=lambda: self.database.tracing.statement(statement),
            largest=MEMBERS,
        )

    async def _get_all(self, gets: Sequence[_Get], _: float | None) -> list[dict[Name, Kept]]:
        found = {
            live_only: await super(GroupedRows, self).get(
                tuple({name: None for get in gets if get.live_only == live_only for name in get.names}),
                live_only=live_only,
            )
            for live_only in {get.live_only for get in gets}
        }
        return [
            {name: found[get.live_only][name] for name in get.names if name in found[get.live_only]} for get in gets
        ]

    async def _find_all(self, finds: Sequence[_Find], _: float | None) -> list[Sequence[Record]]:
        found = {(each.statement, repr(each.asked)): each for each in finds}
        rows = {name: await super(GroupedRows, self).find(each.statement, *each.asked) for name, each in found.items()}
        return [rows[each.statement, repr(each.asked)] for each in finds]

    async def _keep_all(self, keeps: Sequence[_Keep], _: float | None) -> list[Literal[True]]:
        for live_only in {keep.live_only for keep in keeps}:
            changes = [change for keep in keeps if keep.live_only == live_only for change in keep.changes]
            await super().keep(changes, live_only=live_only)
        return [True] * len(keeps)
