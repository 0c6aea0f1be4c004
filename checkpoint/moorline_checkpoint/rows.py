"""Rows of the three checkpoint tables, as the database holds them: text packed, values serialised.

The order of the fields is the order in which statements take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.checkpoint.base import writes_sort_key

from moorline_checkpoint.packing import unpack_text

if TYPE_CHECKING:
    from asyncpg import Record


class CheckpointRow(NamedTuple):
    """A row of `conversation_checkpoints`. `metadata` and `versions` are JSON text."""

    ns: str
    id: str
    parent: str | None
    type: str
    body: bytes
    metadata: str
    versions: str


class ValueRow(NamedTuple):
    """A row of `conversation_values`: what a channel held at a version."""

    ns: str
    channel: str
    version: str
    type: str
    blob: bytes


class WriteRow(NamedTuple):
    """A row of `conversation_writes`: what a task wrote on top of the checkpoint `id`."""

    ns: str
    id: str
    task: str
    idx: int
    path: str
    channel: str
    type: str
    blob: bytes


class DeltaRow(NamedTuple):
    """A write in the history of its channel, where only the order of writes matters."""

    task: str
    channel: str
    type: str
    blob: bytes


class CheckpointRows(NamedTuple):
    """A checkpoint with the values of its channels and the writes on top of it."""

    checkpoint: CheckpointRow
    values: Sequence[ValueRow]
    writes: Sequence[WriteRow]


class HistoryRows(NamedTuple):
    """What the values of channels are made of: the ancestors' writes in the order in which runs applied them, and by
    channel the stored value that they start from."""

    writes: Sequence[DeltaRow]
    seeds: dict[str, ValueRow]


class HeadRows(NamedTuple):
    """The head of a namespace, and what the values of its delta channels are made of."""

    head: CheckpointRows
    delta_channels: frozenset[str]
    history: HistoryRows


def in_order(writes: Iterable[WriteRow]) -> list[WriteRow]:
    """The writes of one checkpoint in the order in which a run applies them."""
    return sorted(
        writes, key=lambda write: writes_sort_key(unpack_text(write.path), unpack_text(write.task), write.idx)
    )


def deltas(writes: Iterable[WriteRow]) -> list[DeltaRow]:
    """The writes of one checkpoint, as rows of the histories of their channels."""
    # Each database record has its own copies of the strings.
    return [DeltaRow(row.task, intern(row.channel), intern(row.type), row.blob) for row in in_order(writes)]


def columns(kind: type[tuple[Any, ...]], rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """The rows as one list for each field of `kind`, a named tuple, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _fields(kind)]


def placed_columns(kind: type[tuple[Any, ...]], groups: Iterable[Iterable[tuple[Any, ...]]]) -> list[list[Any]]:
    """Like `columns`, for the rows of a batch: the first list holds the place of the item that each row belongs to,
    from 1."""
    rows = [(place, *row) for place, group in enumerate(groups, 1) for row in group]
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in ("place", *_fields(kind))]


def _fields(kind: type[tuple[Any, ...]]) -> tuple[str, ...]:
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]  # every named tuple has it
    return fields


def checkpoint_rows(record: Record) -> CheckpointRows:
    """The rows that a record of `get_checkpoints` or `list_checkpoints` holds."""
    ns, own_id = record["checkpoint_ns"], record["checkpoint_id"]
    row = CheckpointRow(
        ns,
        own_id,
        record["parent_checkpoint_id"],
        record["type"],
        record["checkpoint"],
        record["metadata"],
        record["versions"],
    )
    values = [
        ValueRow(ns, *rest)
        for rest in _zipped(record, "value_channels", "value_versions", "value_types", "value_blobs")
    ]
    writes = [
        WriteRow(ns, own_id, *rest)
        for rest in _zipped(
            record, "write_tasks", "write_idxs", "write_paths", "write_channels", "write_types", "write_blobs"
        )
    ]
    return CheckpointRows(row, values, writes)


def history_rows(ns: str, records: Iterable[Record | Mapping[str, Any]]) -> HistoryRows:
    """The rows in the records of `get_history`."""
    steps: dict[int, list[WriteRow]] = {}
    seeds: dict[str, ValueRow] = {}
    for record in records:
        if record["task_id"] is None:
            seeds[record["channel"]] = ValueRow(
                ns, record["channel"], record["version"], record["type"], record["blob"]
            )
        else:
            steps.setdefault(record["depth"], []).append(
                WriteRow(
                    ns,
                    record["checkpoint_id"],
                    record["task_id"],
                    record["idx"],
                    record["task_path"],
                    record["channel"],
                    record["type"],
                    record["blob"],
                )
            )
    return HistoryRows([row for depth in sorted(steps, reverse=True) for row in deltas(steps[depth])], seeds)


def head_rows(record: Record) -> HeadRows:
    """The rows that a record of `begin` holds."""
    names = ("depth", "checkpoint_id", "task_id", "idx", "task_path", "channel", "version", "type", "blob")
    columns = (
        "history_depths",
        "history_ids",
        "history_tasks",
        "history_idxs",
        "history_paths",
        "history_channels",
        "history_versions",
        "history_types",
        "history_blobs",
    )
    history = (dict(zip(names, values, strict=True)) for values in _zipped(record, *columns))
    return HeadRows(
        checkpoint_rows(record),
        frozenset(record["delta_channels"] or ()),
        history_rows(record["checkpoint_ns"], history),
    )


def _zipped(record: Record, *names: str) -> zip[Any]:
    """The rows in the record's arrays, one at each position; null arrays hold none."""
    return zip(*(record[name] or () for name in names), strict=True)
