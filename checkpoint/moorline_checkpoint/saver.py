"""The checkpointer: any LangGraph graph's state in PostgreSQL, by device."""

from __future__ import annotations

from inspect import signature
from os import urandom
from typing import TYPE_CHECKING, Any, Self, cast

from moorline_checkpoint.checkpoint_store import CheckpointStore
from moorline_checkpoint.codec import (
    checkpoint_id,
    device_key,
    left_by_turn,
    namespace,
    pack_checkpoint,
    pack_metadata,
    pack_writes,
    unpack_checkpoint,
    unpack_history,
)
from moorline_checkpoint.database import Database
from moorline_checkpoint.erasure import erasing
from moorline_checkpoint.fact_rows import FactRows
from moorline_checkpoint.fact_store import FactsOf
from moorline_checkpoint.packing import load_json, pack_text
from moorline_checkpoint.reading import StoredRows, TurnRows
from moorline_checkpoint.serializer import StrictSerializer
from moorline_checkpoint.sessions import DEFAULT_TTL, SessionLocks, require_ttl
from moorline_checkpoint.sync_saver import SyncCalls, SyncSaver
from moorline_checkpoint.turn import OpenTurn, open_turn
from moorline_migrations.runner import apply, migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

    from asyncpg import Connection, Pool, Record
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from langgraph.store.base import BaseStore

PAGE = 50
"""Checkpoints that one statement of a listing reads."""


class DeviceCheckpointer(SessionLocks, SyncSaver):
    """A LangGraph checkpointer on asyncpg, and the session lock of each device.

        async with DeviceCheckpointer.from_conn_string(dsn) as saver:
            await saver.setup()
            graph = builder.compile(checkpointer=saver)

    What a call has stored is durable when it returns. Any thread ID is accepted; NUL characters are kept. One object
    serves any number of threads at once, and any event loops, one after another or at the same time. Its synchronous
    methods work in threads that run no event loop, such as those in which LangGraph runs synchronous nodes.

    Stored types are rebuilt if they are safe or only data; see `StrictSerializer`. Any other type comes back as the
    plain data it was made of, unless the given serializer allows it, or LANGGRAPH_STRICT_MSGPACK=true is set: LangGraph
    then allows the types named in a graph's own schemas.

    Every asynchronous method raises `StoreUnavailable`, `SchemaMismatch` or `ConfigurationError` for what the
    database refuses.
    """

    def __init__(
        self,
        source: Pool[Record] | Database,
        *,
        schema: str = "public",
        serde: SerializerProtocol | None = None,
        default_ttl: int = DEFAULT_TTL,
    ) -> None:
        """Works on a pool of the caller's, which is never closed, or on a Database, which has its own schema.

        `default_ttl` seconds is the session TTL of a device that has none yet. If others may create objects in a schema
        of the search_path, make the pool with `connection_class=KnownArrays` from `moorline_checkpoint.array_types`:
        asyncpg's own queries would run their operators.
        """
        super().__init__(serde=serde or StrictSerializer())
        require_ttl(default_ttl)
        self.database = source if isinstance(source, Database) else Database(source, schema=schema)
        self.default_ttl = default_ttl
        self._store = CheckpointStore(self.database)
        self._calls = SyncCalls(self.database)

    @classmethod
    def from_conn_string(
        cls,
        dsn: str,
        *,
        schema: str = "public",
        serde: SerializerProtocol | None = None,
        default_ttl: int = DEFAULT_TTL,
        pool_size: int = 5,
        statement_cache_size: int = 100,
        log_key: str | None = None,
    ) -> Self:
        """Works on connections of its own, at most `pool_size` in each event loop, opened when needed.

        `statement_cache_size=0` is for poolers in transaction mode that track no prepared statements. The tags of
        devices in logs are made with `log_key`; by default with a key that the database keeps.
        """
        database = Database(
            dsn, schema=schema, pool_size=pool_size, statement_cache_size=statement_cache_size, log_key=log_key
        )
        return cls(database, serde=serde, default_ttl=default_ttl)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes its connections of the running event loop, and those of synchronous calls; those of other loops are
        closed with their loops."""
        await self._calls.close()
        await self.database.close()

    async def setup(self) -> None:
        """Brings the tables of conversations, and no others, to the newest version, as `moorline migrate` does."""
        if self.database.dsn is not None:
            await migrate(self.database.dsn, schema=self.database.schema)
            return
        async with self.database.connection() as connection:
            await apply(cast("Connection[Record]", connection), schema=self.database.schema)

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002  # as LangGraph's
        """Sixteen characters that sort as text: a counter and a random part, so that branches share no version.

        It continues from versions that other savers made.
        """
        if current is None:
            counter = 0
        elif isinstance(current, str):
            counted, dot, _ = current.partition(".")
            counter = int(counted) if dot else int(counted[:8], 16)
        else:
            counter = int(current)
        return f"{counter + 1:08x}{urandom(4).hex()}"

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint and the channel values that are new with it; returns its config."""
        device = device_key(config)
        turn = _turn(config)
        if turn is not None:
            checkpoint, metadata = left_by_turn(checkpoint, metadata, new_versions)
        row, values = pack_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        if turn is not None:
            turn.put(row, values)
        else:
            await self._store.put(device, row, values)
        return {
            "configurable": {
                "thread_id": config["configurable"]["thread_id"],
                "checkpoint_ns": config["configurable"].get("checkpoint_ns", ""),
                "checkpoint_id": checkpoint["id"],
            }
        }

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Stores what a task wrote on top of a checkpoint, which itself may not be stored yet."""
        rows, replace = pack_writes(self.serde, config, writes, task_id, task_path)
        if turn := _turn(config):
            turn.put_writes(rows, replace=replace)
        elif rows:
            await self._store.put_writes(device_key(config), rows, replace=replace)

    # LangGraph asks for it in every run, and computing it takes longer than packing the writes.
    aput_writes.__signature__ = signature(aput_writes)  # type: ignore[attr-defined]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names; else the recorded head of its namespace; else the latest."""
        found = await self._rows(config).checkpoint(namespace(config), checkpoint_id(config))
        return None if found is None else unpack_checkpoint(self.serde, device_key(config), *found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints whose metadata contains the filter, newest first, of all devices or of what the config selects.
        No connection is held between two of them."""
        asked = config["configurable"] if config else {}
        device = device_key(config) if config and "thread_id" in asked else None
        ns = namespace(config) if config and "checkpoint_ns" in asked else None
        last: tuple[str | None, str | None, str | None] = (None, None, None)
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.database.fetch(
                "list_checkpoints",
                device,
                ns,
                checkpoint_id(config),
                pack_metadata(filter) if filter else None,
                checkpoint_id(before),
                *last,
                size,
            )
            keys = [(record["device_id"], record["checkpoint_ns"], record["checkpoint_id"]) for record in page]
            for key, rows in zip(keys, await self._store.get_all(keys), strict=True):
                if rows is not None:  # it may have been removed since
                    yield unpack_checkpoint(self.serde, key[0], *rows)
            if len(page) < size:
                return
            last = page[-1]["checkpoint_id"], page[-1]["checkpoint_ns"], page[-1]["device_id"]
            left = None if left is None else left - len(page)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What the channels' values at a checkpoint are made of, from its ancestors."""
        require_many(channels=channels)
        if not channels:
            return {}
        packed = [pack_text(channel) for channel in channels]
        rows = await self._rows(config).history(namespace(config), checkpoint_id(config), packed)
        return unpack_history(self.serde, channels, rows)

    async def adelete_thread(self, thread_id: str) -> None:
        """Removes everything of the device: checkpoints, lock, messages, turns, effects, and what other components have
        of it. An open turn becomes stale."""
        await self.erase(thread_id)

    async def erase(self, device_id: str) -> bool:
        """Like `adelete_thread`. Returns False if there was nothing of the device.

        `ErasureFailed` says which component could not erase what it has; then nothing was erased.
        """
        try:
            with erasing():
                return bool(await self.database.fetchval("erase", pack_text(str(device_id))))
        finally:
            self.database.lock_changed(str(device_id))

    async def export(self, device_id: str) -> dict[str, Any]:
        """What each component in the schema has of the device's conversation, by the component's name; JSON."""
        return dict(load_json(await self.database.fetchval("export", pack_text(str(device_id)))))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints of these runs from all threads.

        Without regard to what follows: a `DeltaChannel` of a thread that goes on loses what those runs wrote.
        """
        require_many(run_ids=run_ids)
        if run_ids:
            await self.database.execute("delete_runs", [pack_text(str(run)) for run in run_ids])

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints of a thread to another, which then has the same heads.

        What the target already has under the same IDs stays.
        """
        source, target = pack_text(str(source_thread_id)), pack_text(str(target_thread_id))
        await self.database.execute("copy_checkpoints", source, target)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Removes checkpoints: all of them with "delete"; with "keep_latest" all but the latest of each namespace and
        those that the values of its `DeltaChannel`s are made of. Raises ValueError for another strategy."""
        require_many(thread_ids=thread_ids)
        statement = {"keep_latest": "prune_to_latest", "delete": "prune_all"}.get(strategy)
        if statement is None:
            raise ValueError(f"there is no pruning strategy {strategy!r}; use 'keep_latest' or 'delete'")
        for thread_id in thread_ids:
            await self.database.execute(statement, pack_text(str(thread_id)))

    def memory(self, turn: OpenTurn, *names: str) -> BaseStore:
        """The facts that an agent keeps of the person whose turn it is: read as the turn leaves them, and written with
        its commit. `names` are the agent's name and its earlier ones. Facts that have expired are not there."""
        return FactsOf(
            FactRows(self.database, turn.device_id),
            self._calls,
            beginnings=[f"{name}." for name in names],
            turn=turn,
            ttl={"omit_expired": True},
        )

    def _rows(self, config: RunnableConfig) -> StoredRows | TurnRows:
        stored = StoredRows(self.database, self._store, device_key(config))
        turn = _turn(config)
        return stored if turn is None else TurnRows(stored, turn)


def require_many(**named: Sequence[str]) -> None:
    """Raises TypeError for one string where several belong: its letters would be taken for them."""
    for name, given in named.items():
        if isinstance(given, str | bytes):
            raise TypeError(f"{name} must be a list of strings, not one string: write {name}=[…].")


def _turn(config: RunnableConfig) -> OpenTurn | None:
    """The open turn that a call belongs to; without one the checkpointer is a plain saver."""
    return open_turn(str(config["configurable"]["thread_id"]))
