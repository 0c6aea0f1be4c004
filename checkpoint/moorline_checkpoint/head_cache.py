"""A cache of heads: what a turn left need not be read again by the device's next turn in the same process."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from moorline_checkpoint.packing import load_json, pack_text
from moorline_checkpoint.rows import CheckpointRow, CheckpointRows, DeltaRow, HeadRows, HistoryRows, ValueRow, deltas
from moorline_checkpoint.turn import OpenTurn

LIMIT = 2**19
"""Bytes that all cached heads may take, about."""

_HEAD = 2000
"""Bytes that a head takes besides the values that are stored in it, about."""

_ROW = 150
"""The same of a row of its history."""


class HeadCache:
    """One head for each device; the least recently used is dropped first.

    A checkpoint does not change under its ID, so a cached one stays true; whether it is still the head, Begin tells.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[str, tuple[HeadRows, int]] = OrderedDict()
        self._size = 0
        # Event loops in several threads may share the turns.
        self._changing = Lock()

    def get(self, device_id: str) -> HeadRows | None:
        """The head that the last turn of the device in this process left, if it is still kept."""
        rows, _ = self._heads.get(device_id, (None, 0))
        return rows

    def put(self, turn: OpenTurn) -> None:
        """Keeps the head of the agent that holds the session after a turn that was committed."""
        rows = None if turn.active_agent is None else _left_by(turn, turn.active_agent)
        size = 0 if rows is None else _size(rows)
        with self._changing:
            self._drop(turn.device_id)
            if rows is None or size > LIMIT:  # which would only push out all others
                return
            self._heads[turn.device_id] = rows, size
            self._size += size
            while self._size > LIMIT:
                self._drop(next(iter(self._heads)))

    def forget(self, device_id: str) -> None:
        """Drops the cached head of the device."""
        with self._changing:
            self._drop(device_id)

    def _drop(self, device_id: str) -> None:
        _, size = self._heads.pop(device_id, (None, 0))
        self._size -= size


def _left_by(turn: OpenTurn, ns: str) -> HeadRows | None:
    """The head of a namespace as the turn left it; None if what it is made of is not all in hand."""
    chain: list[CheckpointRow] = []
    own_id = turn.heads.get(ns)
    while own_id is not None and (written := turn.checkpoints.get((ns, own_id))):
        chain.append(written)
        own_id = written.parent
    older = turn.prefetched.get(ns)
    if not chain or own_id != (older.head.checkpoint.id if older else None):
        return None
    values = [
        *(older.head.values if older else ()),
        *(value for value in turn.channel_values.values() if value.ns == ns),
    ]
    ancestors = [CheckpointRows(row, _values_of(row, values), turn.writes_on(ns, row.id)) for row in chain[1:]]
    if older:
        head = older.head.checkpoint
        ancestors.append(older.head._replace(writes=turn.writes_on(ns, head.id, older.head.writes)))
    channels = frozenset(map(pack_text, json.loads(chain[0].metadata).get("counters_since_delta_snapshot", ())))
    history = _history(channels, ancestors, older)
    if history is None:
        return None
    head_rows = CheckpointRows(chain[0], _values_of(chain[0], values), turn.writes_on(ns, chain[0].id))
    return HeadRows(head_rows, channels, history)


def _history(
    channels: frozenset[str], ancestors: Sequence[CheckpointRows], older: HeadRows | None
) -> HistoryRows | None:
    """What the channels' values are made of: the ancestors, newest first, then what the oldest of them is made of."""
    writes: list[DeltaRow] = []
    seeds: dict[str, ValueRow] = {}
    for ancestor in ancestors:
        sought = channels - seeds.keys()
        writes = [*deltas(write for write in ancestor.writes if write.channel in sought), *writes]
        seeds |= {value.channel: value for value in ancestor.values if value.channel in sought}
    sought = channels - seeds.keys()
    if older is not None and sought:
        if not older.delta_channels.issuperset(sought):
            return None
        writes = [*(write for write in older.history.writes if write.channel in sought), *writes]
        seeds |= {name: seed for name, seed in older.history.seeds.items() if name in sought}
    return HistoryRows(writes, seeds)


def _values_of(row: CheckpointRow, values: Sequence[ValueRow]) -> list[ValueRow]:
    versions = {pack_text(channel): pack_text(str(version)) for channel, version in load_json(row.versions).items()}
    return [value for value in values if versions.get(value.channel) == value.version]


def _size(rows: HeadRows) -> int:
    blobs = [value.blob for value in (*rows.head.values, *rows.history.seeds.values())]
    blobs += [write.blob for write in rows.head.writes]
    blobs += [write.blob for write in rows.history.writes]
    return _HEAD + sum(_ROW + len(blob) for blob in blobs)
