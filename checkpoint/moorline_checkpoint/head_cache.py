"""A cache of heads: what a turn left need not be read again by the device's next turn in the same process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from moorline_checkpoint.history_walk import HistoryWalk
from moorline_checkpoint.packing import load_json, pack_text, parse_json
from moorline_checkpoint.rows import CheckpointRow, CheckpointRows, HeadRows, ValueRow
from moorline_checkpoint.turn import OpenTurn

LIMIT = 2**19
"""About how many bytes all cached heads may take."""

ADDRESSES = 2**12
"""How many devices that lead elsewhere are remembered."""

_HEAD = 2000
"""About how many bytes a head takes besides its stored values."""

_ROW = 150
"""The same for a row of its history."""


class CachedHeads(NamedTuple):
    """The heads of a device that a turn left."""

    heads: Mapping[str, HeadRows]
    """By namespace."""
    fence: int
    """The fence of the turn."""
    size: int

    def ids(self) -> dict[str, str]:
        """Their checkpoint IDs by namespace."""
        return {ns: rows.head.checkpoint.id for ns, rows in self.heads.items()}

    def that_are(self, ids: Mapping[str, str]) -> dict[str, HeadRows]:
        """Those that have these IDs."""
        return {ns: rows for ns, rows in self.heads.items() if ids.get(ns) == rows.head.checkpoint.id}


NONE = CachedHeads({}, 0, 0)
"""Nothing is cached."""


class HeadCache:
    """For each device the heads that its next turn reads first; the least recently used device is dropped first.

    A checkpoint with a given ID never changes, so a cached one stays valid; Begin says whether it is still the head.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[str, CachedHeads] = OrderedDict()
        self._addresses: OrderedDict[str, str] = OrderedDict()
        """The conversations of devices that lead elsewhere, as their last turns found them. One that is out of date
        costs only that Begin brings the heads."""
        self._size = 0
        # Event loops in several threads may share the turns.
        self._changing = Lock()

    def get(self, device_id: str) -> CachedHeads:
        """What the device's last turn in this process left, if it is still cached."""
        return self._heads.get(self.conversation(device_id), NONE)

    def conversation(self, device_id: str) -> str:
        """The conversation that the device's last turn in this process was in."""
        return self._addresses.get(device_id, device_id)

    def put(self, turn: OpenTurn) -> None:
        """Keeps the heads of the manager and of the agent that holds the session after a turn that was committed."""
        left = {ns: _left_by(turn, ns) for ns in {"", turn.active_agent or ""}}
        heads = {ns: rows for ns, rows in left.items() if rows is not None}
        size = sum(map(_size, heads.values()))
        with self._changing:
            self._drop(turn.device_id)
            self._addresses.pop(turn.sender, None)
            if turn.address is not None:
                self._addresses[turn.address] = turn.device_id
                while len(self._addresses) > ADDRESSES:
                    self._addresses.popitem(last=False)
            if not heads or size > LIMIT:  # it would only push out all others
                return
            self._heads[turn.device_id] = CachedHeads(heads, turn.fence, size)
            self._size += size
            while self._size > LIMIT:
                self._drop(next(iter(self._heads)))

    def forget(self, device_id: str) -> None:
        """Drops the cached heads of the device."""
        with self._changing:
            self._addresses.pop(device_id, None)
            self._drop(device_id)

    def _drop(self, device_id: str) -> None:
        self._size -= self._heads.pop(device_id, NONE).size


def _left_by(turn: OpenTurn, ns: str) -> HeadRows | None:
    """The head of a namespace as the turn left it; None if not all of it is in memory."""
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
    channels = frozenset(map(pack_text, parse_json(chain[0].metadata).get("counters_since_delta_snapshot", ())))
    walk = HistoryWalk(channels)
    for ancestor in ancestors:
        walk.step(ancestor)
    if older and walk.sought:
        if not older.delta_channels.issuperset(walk.sought):
            return None
        walk.end(older.history)
    head_rows = CheckpointRows(chain[0], _values_of(chain[0], values), turn.writes_on(ns, chain[0].id))
    return HeadRows(head_rows, channels, walk.rows())


def _values_of(row: CheckpointRow, values: Sequence[ValueRow]) -> list[ValueRow]:
    versions = {pack_text(channel): pack_text(str(version)) for channel, version in load_json(row.versions).items()}
    return [value for value in values if versions.get(value.channel) == value.version]


def _size(rows: HeadRows) -> int:
    blobs = [value.blob for value in (*rows.head.values, *rows.history.seeds.values())]
    blobs += [write.blob for write in rows.head.writes]
    blobs += [write.blob for write in rows.history.writes]
    return _HEAD + sum(_ROW + len(blob) for blob in blobs)
