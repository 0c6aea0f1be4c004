"""The walk up a history: gathers what the values of delta channels are made of, from the nearest ancestor to the
farthest."""

from __future__ import annotations

from collections.abc import Iterable

from moorline_checkpoint.rows import CheckpointRows, DeltaRow, HistoryRows, ValueRow, deltas


class HistoryWalk:
    """Gathers the writes of a checkpoint's ancestors until an ancestor with a stored value is found for each
    channel."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.sought = frozenset(channels)
        """The channels for which no stored value is found yet; when there are none, the walk is over."""
        self._parts: list[list[DeltaRow]] = []
        self._seeds: dict[str, ValueRow] = {}

    def step(self, ancestor: CheckpointRows) -> None:
        """Takes what the next ancestor has for those channels."""
        self._parts.append(deltas(write for write in ancestor.writes if write.channel in self.sought))
        found = {value.channel: value for value in ancestor.values if value.channel in self.sought}
        self._seeds |= found
        self.sought -= found.keys()

    def end(self, older: HistoryRows) -> None:
        """Takes what the last ancestor itself is made of."""
        self._parts.append([write for write in older.writes if write.channel in self.sought])
        self._seeds |= {channel: seed for channel, seed in older.seeds.items() if channel in self.sought}

    def rows(self) -> HistoryRows:
        """All that was gathered, in the order in which runs applied it."""
        return HistoryRows([write for part in reversed(self._parts) for write in part], self._seeds)
