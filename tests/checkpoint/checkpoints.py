"""Checkpoints made by hand."""

from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, empty_checkpoint

from moorline_checkpoint.saver import DeviceCheckpointer


def config(thread_id: str, checkpoint_id: str | None = None, *, ns: str = "") -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


async def put(
    saver: DeviceCheckpointer,
    parent: RunnableConfig,
    values: dict[str, Any] | None = None,
    *,
    own_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> RunnableConfig:
    """Stores a checkpoint on top of `parent` whose channels hold `values`, each at a new version."""
    checkpoint: Checkpoint = empty_checkpoint()
    if own_id is not None:
        checkpoint["id"] = own_id
    checkpoint["channel_values"] = values or {}
    checkpoint["channel_versions"] = {channel: saver.get_next_version(None, None) for channel in values or {}}
    described = {"source": "loop", "step": 0, "parents": {}} | (metadata or {})
    return await saver.aput(parent, checkpoint, cast("CheckpointMetadata", described), checkpoint["channel_versions"])
