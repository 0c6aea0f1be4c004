"""Translates between LangGraph's checkpoints and our rows.

Everything that a graph stores goes through the serializer; only what SQL has to read (names, versions, metadata) stays
readable, packed as in `packing`.
"""

from collections.abc import Iterable, Sequence
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

from moorline_checkpoint.packing import load_json, pack_json, pack_text, unpack_text
from moorline_checkpoint.rows import CheckpointRow, DeltaRow, HistoryRows, ValueRow, WriteRow, in_order
from moorline_migrations.errors import MoorlineError

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


def without_spent_triggers(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the versions of channels that started a node and are empty again: nothing will be compared
    with them, and in a checkpoint that waits for nothing they are half the bytes."""
    held = checkpoint["channel_values"]
    versions = {
        channel: version
        for channel, version in checkpoint["channel_versions"].items()
        if channel in held or not channel.startswith(_TRIGGERS)
    }
    seen = {
        node: kept
        for node, channels in checkpoint["versions_seen"].items()
        if (kept := {channel: version for channel, version in channels.items() if channel in versions})
    }
    return {**checkpoint, "channel_versions": versions, "versions_seen": seen}


def pack_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> tuple[CheckpointRow, list[ValueRow]]:
    """The rows of a checkpoint: its own, and one for each channel value that is new with it."""
    ns, own_id, parent = namespace(config), pack_text(checkpoint["id"]), checkpoint_id(config)
    kind, body = serde.dumps_typed({k: v for k, v in checkpoint.items() if k not in _OWN_COLUMNS})
    row = CheckpointRow(
        ns=ns,
        id=own_id,
        parent=None if parent == own_id else parent,
        type=kind,
        body=body,
        metadata=pack_json(_run_metadata(config, metadata)),
        versions=pack_json(checkpoint["channel_versions"]),
    )
    held = checkpoint["channel_values"]
    values = [
        ValueRow(ns, pack_text(channel), pack_text(str(version)), *serde.dumps_typed(held[channel]))
        for channel, version in new_versions.items()
        if channel in held
    ]
    return row, values


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


def unpack_checkpoint(
    serde: SerializerProtocol,
    device: str,
    row: CheckpointRow,
    values: Iterable[ValueRow],
    writes: Iterable[WriteRow],
) -> CheckpointTuple:
    """The checkpoint that the rows make up. MoorlineError if its body cannot be read.

    For a type that it refuses, a strict serializer returns the bare arguments, here as everywhere in LangGraph.
    """
    body = serde.loads_typed((row.type, row.body))
    if not isinstance(body, dict):
        raise MoorlineError(
            f"The stored checkpoint {row.id} is damaged or was written by something else; "
            "delete it, or read an older one by its checkpoint_id."
        )
    checkpoint = {
        **body,
        "id": unpack_text(row.id),
        "channel_versions": load_json(row.versions),
        "channel_values": {unpack_text(value.channel): serde.loads_typed((value.type, value.blob)) for value in values},
    }
    return CheckpointTuple(
        config=_config(device, row.ns, row.id),
        checkpoint=cast("Checkpoint", checkpoint),
        metadata=load_json(row.metadata),
        parent_config=_config(device, row.ns, row.parent) if row.parent else None,
        pending_writes=[_pending(serde, write) for write in in_order(writes)],
    )


def unpack_history(
    serde: SerializerProtocol, channels: Sequence[str], rows: HistoryRows
) -> dict[str, DeltaChannelHistory]:
    """What each channel's value is made of."""
    pending = [_pending(serde, write) for write in rows.writes]
    history: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        history[channel] = {"writes": [write for write in pending if write[1] == channel]}
        if seed := rows.seeds.get(pack_text(channel)):
            history[channel]["seed"] = serde.loads_typed((seed.type, seed.blob))
    return history


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
