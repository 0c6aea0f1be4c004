"""Translates between LangGraph's checkpoints and our rows.

Everything that a graph stores goes through the serializer; only what SQL has to read (names, versions, metadata) stays
readable, packed as in `packing`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    EXCLUDED_METADATA_KEYS,
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from moorline_checkpoint.damage import readable
from moorline_checkpoint.errors import InvalidMetadata
from moorline_checkpoint.packing import load_json, pack_json, pack_text, unpack_text
from moorline_checkpoint.rows import CheckpointRow, DeltaRow, HistoryRows, ValueRow, WriteRow, in_order
from moorline_migrations.errors import StateDamaged

_OWN_COLUMNS = ("id", "channel_values", "channel_versions")
"""Keys of a checkpoint that are stored outside its serialised body."""

_PLAIN = (str, int, float)

_TRIGGERS = ("__start__", "branch:to:")
"""Names of LangGraph's channels that only start a node: they are empty once it has run."""


def device_key(config: RunnableConfig) -> str:
    """The packed thread ID of a run: what `device_id` columns hold."""
    return pack_text(str(config["configurable"]["thread_id"]))


def namespace(config: RunnableConfig) -> str:
    """The packed checkpoint namespace of a run."""
    return pack_text(config["configurable"].get("checkpoint_ns", ""))


def checkpoint_id(config: RunnableConfig | None) -> str | None:
    """The packed ID of the checkpoint that a config names, or None."""
    named = config["configurable"].get("checkpoint_id") if config else None
    return pack_text(named) if named else None


def left_by_turn(
    checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
) -> tuple[Checkpoint, CheckpointMetadata]:
    """What a turn has to store of a checkpoint, in a third of the bytes.

    Left out are the versions of channels that are empty again, because nothing will be compared with them; the counts
    of delta channels that were never written; the parents of the outermost graph, which has none; and which channels
    were updated last, which only saves LangGraph a look at all of them. A channel that this run has not written keeps
    its version even if the graph does not know it: it may be the history of an agent that is missing from the app.
    """
    held, counters = checkpoint["channel_values"], metadata.get("counters_since_delta_snapshot") or {}
    versions = {
        channel: version
        for channel, version in checkpoint["channel_versions"].items()
        if channel in held
        or not (channel.startswith(_TRIGGERS) or (channel in new_versions and channel not in counters))
    }
    seen = {
        node: kept
        for node, channels in checkpoint["versions_seen"].items()
        if (kept := {channel: version for channel, version in channels.items() if channel in versions})
    }
    kept_metadata: dict[str, Any] = {key: value for key, value in metadata.items() if value or key != "parents"}
    if counters:
        written = {channel: count for channel, count in counters.items() if channel in versions}
        kept_metadata["counters_since_delta_snapshot"] = written
    left = {**checkpoint, "channel_versions": versions, "versions_seen": seen}
    left.pop("updated_channels", None)
    return cast("Checkpoint", left), cast("CheckpointMetadata", kept_metadata)


def pack_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> tuple[CheckpointRow, list[ValueRow]]:
    """The rows of a checkpoint: its own, and one for each channel value that is new with it."""
    ns, own_id, parent = namespace(config), pack_text(checkpoint["id"]), checkpoint_id(config)
    body = {key: value for key, value in checkpoint.items() if key not in _OWN_COLUMNS}
    if not body.get("versions_seen"):
        body.pop("versions_seen", None)
    kind, packed = serde.dumps_typed(body)
    row = CheckpointRow(
        ns=ns,
        id=own_id,
        parent=None if parent == own_id else parent,
        type=kind,
        body=packed,
        metadata=pack_metadata(_run_metadata(config, metadata)),
        versions=pack_json(checkpoint["channel_versions"]),
    )
    held = checkpoint["channel_values"]
    values = [
        ValueRow(ns, pack_text(channel), pack_text(str(version)), *serde.dumps_typed(held[channel]))
        for channel, version in new_versions.items()
        if channel in held
    ]
    return row, values


def pack_metadata(metadata: Mapping[str, Any]) -> str:
    """JSON text of a run's metadata, or of a filter on it. Raises `InvalidMetadata` for what JSON cannot hold."""
    try:
        return pack_json(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMetadata(
            f"The metadata of a run must be JSON, because listings filter by it: {error}. Keep other values in the "
            "graph's state."
        ) from error


def pack_writes(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> tuple[list[WriteRow], bool]:
    """The rows of a task's writes, and whether they replace what the task wrote there before.

    Special writes (errors, interrupts, resumes) have fixed places and replace; others never do.
    """
    ns, parent = namespace(config), pack_text(config["configurable"]["checkpoint_id"])
    replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
    placed: dict[int, WriteRow] = {}
    for position, (channel, value) in enumerate(writes):
        idx = WRITES_IDX_MAP.get(channel, position)
        if replaces or idx not in placed:
            placed[idx] = WriteRow(
                ns,
                parent,
                pack_text(task_id),
                idx,
                pack_text(task_path),
                pack_text(channel),
                *serde.dumps_typed(value),
            )
    return list(placed.values()), replaces


@readable()
def unpack_checkpoint(
    serde: SerializerProtocol,
    device: str,
    row: CheckpointRow,
    values: Iterable[ValueRow],
    writes: Iterable[WriteRow],
) -> CheckpointTuple:
    """The checkpoint that the rows make up. `StateDamaged` if they cannot be read.

    For a type that it refuses, a strict serializer returns the bare arguments, here as everywhere in LangGraph.
    """
    body = serde.loads_typed((row.type, row.body))
    if not isinstance(body, dict):
        raise StateDamaged(
            f"The stored checkpoint {row.id} is damaged or was written by something else; "
            "delete it, or read an older one by its checkpoint_id."
        )
    checkpoint = {
        "versions_seen": {},
        "updated_channels": None,
        **body,
        "id": unpack_text(row.id),
        "channel_versions": _mapping(load_json(row.versions)),
        "channel_values": {unpack_text(value.channel): serde.loads_typed((value.type, value.blob)) for value in values},
    }
    return CheckpointTuple(
        config=_config(device, row.ns, row.id),
        checkpoint=cast("Checkpoint", checkpoint),
        metadata=cast("CheckpointMetadata", _mapping(load_json(row.metadata))),
        parent_config=_config(device, row.ns, row.parent) if row.parent else None,
        pending_writes=[_pending(serde, write) for write in in_order(writes)],
    )


@readable()
def unpack_history(
    serde: SerializerProtocol, channels: Sequence[str], rows: HistoryRows
) -> dict[str, DeltaChannelHistory]:
    """What each channel's value is made of. `StateDamaged` if the rows cannot be read."""
    pending = [_pending(serde, write) for write in rows.writes]
    history: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        history[channel] = {"writes": [write for write in pending if write[1] == channel]}
        if seed := rows.seeds.get(pack_text(channel)):
            history[channel]["seed"] = serde.loads_typed((seed.type, seed.blob))
    return history


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _pending(serde: SerializerProtocol, write: WriteRow | DeltaRow) -> PendingWrite:
    return unpack_text(write.task), unpack_text(write.channel), serde.loads_typed((write.type, write.blob))


def _config(device: str, ns: str, own_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": unpack_text(device),
            "checkpoint_ns": unpack_text(ns),
            "checkpoint_id": unpack_text(own_id),
        }
    }


def _run_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """The checkpoint's own metadata and the plain values of its run's metadata, for the keys that LangGraph's rule
    admits."""
    merged: dict[str, Any] = dict(metadata)
    for source in (config.get("metadata"), config.get("configurable")):
        for key, value in (source or {}).items():
            if isinstance(value, _PLAIN) and key not in EXCLUDED_METADATA_KEYS and not key.startswith("__"):
                merged.setdefault(key, value)
    merged.pop("writes", None)
    return merged
