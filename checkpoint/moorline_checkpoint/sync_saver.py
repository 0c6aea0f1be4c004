"""The synchronous methods of LangGraph's savers, for nodes and graphs that run in threads.

They are the asynchronous ones, run in another thread's event loop while the calling thread waits.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

from langgraph.checkpoint.base import BaseCheckpointSaver

from moorline_checkpoint.database import Database
from moorline_checkpoint.loop_thread import LoopThread
from moorline_migrations.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )

DEADLINE = 60.0
"""Seconds to wait for the event loop of a caller's pool."""

T = TypeVar("T")


class SyncCalls:
    """Runs a saver's coroutines for threads without an event loop: on the loop of a caller's pool, or else on one in a
    thread of its own, with connections of its own, which neither a busy loop nor a full executor holds up.

    A call belongs to the open turn that its thread belongs to.
    """

    def __init__(self, database: Database) -> None:
        self._given_loop = database.given_loop
        self._own = LoopThread()

    def run(self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
        """What the method returns, or raises. Raises NotImplementedError in a thread that runs an event loop, which
        must not wait; `StoreUnavailable` if the loop of the caller's pool does not answer within `DEADLINE`, and
        `ConfigurationError` if it does not run at all."""
        refuse_in_loop(method.__name__)
        loop = self._given_loop or self._own.loop()
        if not loop.is_running():
            raise ConfigurationError(
                "The event loop of the checkpointer's pool does not run, so nothing can be sent on its connections. "
                "Make the checkpointer with DeviceCheckpointer.from_conn_string(dsn)."
            )
        answer = asyncio.run_coroutine_threadsafe(method(*args, **options), loop)
        try:
            return answer.result(DEADLINE if self._given_loop else None)
        except TimeoutError:
            if answer.done():
                raise
            raise StoreUnavailable(
                f"The event loop of the checkpointer's pool has not answered for {DEADLINE:g} s; something blocks it. "
                "DeviceCheckpointer.from_conn_string(dsn) does not depend on a loop of yours."
            ) from None
        except CancelledError:
            raise StoreUnavailable("The checkpointer was closed meanwhile; try again.") from None
        finally:
            answer.cancel()

    async def close(self) -> None:
        """Ends the thread. The next call starts it again."""
        await self._own.end()


def refuse_in_loop(name: str) -> None:
    """Raises NotImplementedError, with the call to use instead, in a thread that runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    instead = f"async for … in saver.{name}(…)" if name == "alist" else f"await saver.{name}(…)"
    raise NotImplementedError(
        f"saver.{name.removeprefix('a')}(…) would block the event loop of this thread: {instead}, and run graphs with "
        "ainvoke or astream."
    )


class SyncSaver(BaseCheckpointSaver[str]):
    """Each method does what the asynchronous one of the same name with an `a` does, in any thread that runs no event
    loop; where one runs, it raises NotImplementedError. See `SyncCalls.run` for other errors."""

    _calls: SyncCalls

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._calls.run(self.aget_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        refuse_in_loop("alist")
        return self._listed(self.alist(config, filter=filter, before=before, limit=limit))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._calls.run(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._calls.run(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        self._calls.run(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._calls.run(self.adelete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._calls.run(self.acopy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._calls.run(self.aprune, thread_ids, strategy=strategy)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._calls.run(self.aget_delta_channel_history, config=config, channels=channels)

    def _listed(self, found: AsyncIterator[CheckpointTuple]) -> Iterator[CheckpointTuple]:
        async def following() -> CheckpointTuple | None:
            return await anext(found, None)

        while (checkpoint := self._calls.run(following)) is not None:
            yield checkpoint
