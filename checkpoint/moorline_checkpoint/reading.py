"""Reads the rows of checkpoints: the stored ones, and what an open turn has written over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorline_checkpoint.checkpoint_store import CheckpointStore
from moorline_checkpoint.database import Database
from moorline_checkpoint.history_walk import HistoryWalk
from moorline_checkpoint.packing import load_json, pack_text
from moorline_checkpoint.rows import CheckpointRow, CheckpointRows, HeadRows, HistoryRows, ValueRow, history_rows

if TYPE_CHECKING:
    from moorline_checkpoint.turn import OpenTurn


@dataclass(frozen=True)
class StoredRows:
    """What the database has of a device. All names are packed."""

    database: Database
    store: CheckpointStore
    device: str

    async def checkpoint(self, ns: str, own_id: str | None) -> CheckpointRows | None:
        """The checkpoint asked for, else the recorded head of its namespace, else the latest."""
        return await self.store.get(self.device, ns, own_id)

    async def history(self, ns: str, own_id: str | None, channels: Sequence[str]) -> HistoryRows:
        """What the channels' values at that checkpoint are made of, from its ancestors."""
        records = await self.database.fetch("get_history", self.device, ns, own_id, list(channels))
        return history_rows(ns, records)


@dataclass(frozen=True)
class TurnRows:
    """What a run sees in its open turn: first what the turn has written, then what came with its claim, then what is
    stored."""

    stored: StoredRows
    turn: OpenTurn

    async def checkpoint(self, ns: str, own_id: str | None) -> CheckpointRows | None:
        """The checkpoint asked for, else the namespace's current head in the turn; never merely the latest."""
        own_id = own_id or self.turn.heads.get(ns)
        if own_id is None:
            return None
        written = self.turn.checkpoints.get((ns, own_id))
        if written is None:
            prefetched = self._prefetched(ns, own_id)
            found = prefetched.head if prefetched else await self.stored.checkpoint(ns, own_id)
            return found and found._replace(writes=self.turn.writes_on(ns, own_id, found.writes))
        return CheckpointRows(written, await self._values(written), self.turn.writes_on(ns, own_id))

    async def history(self, ns: str, own_id: str | None, channels: Sequence[str]) -> HistoryRows:
        """Like `StoredRows.history`: up the turn's own checkpoints first, then on through the stored ones that they are
        based on."""
        own_id = own_id or self.turn.heads.get(ns)
        written = self.turn.checkpoints.get((ns, own_id)) if own_id else None
        if written is None:
            prefetched = self._prefetched(ns, own_id)
            if prefetched and prefetched.delta_channels.issuperset(channels):
                return prefetched.history
            return await self.stored.history(ns, own_id, channels)
        walk = HistoryWalk(channels)
        parent = written.parent
        while parent is not None and walk.sought:
            ancestor = await self.checkpoint(ns, parent)
            if ancestor is None:
                break
            walk.step(ancestor)
            if walk.sought and (ns, parent) not in self.turn.checkpoints:
                walk.end(await self.stored.history(ns, parent, sorted(walk.sought)))
                break
            parent = ancestor.checkpoint.parent
        return walk.rows()

    def _prefetched(self, ns: str, own_id: str | None) -> HeadRows | None:
        """The head that came with the claim, if that is the one asked for."""
        prefetched = self.turn.prefetched.get(ns)
        return prefetched if prefetched and prefetched.head.checkpoint.id == own_id else None

    async def _values(self, written: CheckpointRow) -> list[ValueRow]:
        """The values of a checkpoint of the turn; those that the turn did not change are stored with an older
        checkpoint."""
        held = {pack_text(c): pack_text(str(v)) for c, v in load_json(written.versions).items()}
        values = [self.turn.channel_values.get((written.ns, channel, version)) for channel, version in held.items()]
        found = [value for value in values if value is not None]
        if len(found) < len(held):
            known = {value.channel for value in found}
            missing = {channel: version for channel, version in held.items() if channel not in known}
            records = await self.stored.database.fetch(
                "get_values", self.stored.device, written.ns, list(missing), list(missing.values())
            )
            found.extend(ValueRow(written.ns, *record) for record in records)
        return found
