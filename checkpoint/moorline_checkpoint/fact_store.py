"""The store of facts: LangGraph's `BaseStore` on PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from moorline_checkpoint.database import Database
from moorline_checkpoint.fact_rows import FactRows, GroupedRows, Kept
from moorline_checkpoint.facts import VALUE_BYTES, Change, Name, joined, last, read, written
from moorline_checkpoint.packing import load_json, pack_json, pack_text, unpack_text
from moorline_checkpoint.sync_saver import SyncCalls
from moorline_migrations.errors import MoorlineError
from moorline_migrations.runner import apply, migrate

if TYPE_CHECKING:
    from types import TracebackType

    from asyncpg import Connection, Pool, Record

    from moorline_checkpoint.turn import OpenTurn

logger = logging.getLogger("moorline.facts")

NOBODY = ""
"""The device of facts that belong to no conversation."""

ITEMS = 1_000
"""The most items that one search, and namespaces that one listing, gives; and the most operations in one batch."""

FURTHEST = 1_000_000_000
"""The furthest place at which a search may begin."""

SWEPT = 1_000
"""The most expired facts that one statement removes."""

OPERATORS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})
"""What a filter may ask of a field."""

_NOT_BY_MEANING = (
    "This store finds facts by namespace and filter, not by meaning: leave out {}=. Searching by meaning needs a store "
    "with embeddings, such as LangGraph's own with pgvector."
)


class FactsOf(BaseStore):
    """The facts of one device whose namespaces begin in one way, which is no part of the names that its users see.

    A store of a turn writes into the turn, and reads what the turn has written over what is stored; other stores write
    at once. Reads of a batch do not see its writes, and all writes of a batch are stored together.

    Bounds: see `facts`, and `ITEMS`. Raises `ValueError`, `TypeError` or LangGraph's `InvalidNamespaceError` for what
    cannot be stored or asked, and `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    supports_ttl = True

    def __init__(
        self,
        rows: FactRows,
        calls: SyncCalls,
        *,
        beginnings: Sequence[str] = ("",),
        turn: OpenTurn | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        """`beginnings` are what stored namespaces begin with: new ones with the first, older ones with any of them."""
        self.ttl_config = ttl
        self._rows = rows
        self._calls = calls
        self._beginnings = tuple(beginnings)
        self._turn = turn

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """`abatch` for threads that run no event loop; raises `InvalidStateError` where one runs."""
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise asyncio.InvalidStateError(
                "store.batch(…) and the other synchronous methods would block the event loop of this thread: use the "
                "asynchronous ones, such as `await store.aput(…)`."
            )
        return self._calls.run(self.abatch, ops)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of the operations, in their order."""
        asked = list(ops)
        if len(asked) > ITEMS:
            raise ValueError(f"A batch may have {ITEMS:,} operations; this one has {len(asked):,}.")
        for op in asked:
            validate_op_namespace(op)
        changes = [change for op in asked if isinstance(op, PutOp) for change in self._changes(op)]
        results: list[Result] = [None] * len(asked)
        reads: list[Change] = []
        gets = {place: op for place, op in enumerate(asked) if isinstance(op, GetOp)}
        if gets:
            for place, item in zip(gets, await self._get(list(gets.values()), reads), strict=True):
                results[place] = item
        for place, op in enumerate(asked):
            if isinstance(op, SearchOp):
                results[place] = await self._search(op, reads)
            elif isinstance(op, ListNamespacesOp):
                results[place] = await self._list(op)
        await self._write([*reads, *changes])
        return results

    async def _get(self, ops: Sequence[GetOp], reads: list[Change]) -> list[Item | None]:
        names = [[(begin + joined(op.namespace), op.key) for begin in self._beginnings] for op in ops]
        own = {name: change for each in names for name in each if (change := self._written(*name)) is not None}
        asked = tuple({name: None for each in names for name in each if name not in own})
        stored = await self._rows.get(asked, live_only=self._live_only) if asked else {}
        items: list[Item | None] = []
        for op, candidates in zip(ops, names, strict=True):
            name, kept = next(
                ((name, kept) for name in candidates if (kept := self._standing(own, stored, name))), (None, None)
            )
            if name is None or kept is None:
                items.append(None)
                continue
            if op.refresh_ttl and kept.ttl is not None:
                reads.append(read(*name))
            items.append(
                Item(
                    value=kept.value,
                    key=op.key,
                    namespace=op.namespace,
                    created_at=kept.created_at,
                    updated_at=kept.updated_at,
                )
            )
        return items

    def _standing(self, own: Mapping[Name, Change], stored: Mapping[Name, Kept], name: Name) -> Kept | None:
        change = own.get(name)
        if change is None or self._turn is None:
            return stored.get(name)
        return None if change["value"] is None else Kept(deepcopy(change["value"]), self._turn.now, self._turn.now)

    async def _search(self, op: SearchOp, reads: list[Change]) -> list[SearchItem]:
        if op.query:
            raise ValueError(_NOT_BY_MEANING.format("query"))
        _require_page(op.limit, op.offset)
        conditions = pack_json(list(_conditions(op.filter or {})))
        if len(conditions) > VALUE_BYTES:
            raise ValueError(f"A filter may have {VALUE_BYTES:,} bytes as JSON; this one has {len(conditions):,}.")
        rows = await self._rows.find(
            "search_facts",
            *self._ranges(joined(op.namespace_prefix)),
            conditions,
            self._live_only,
            self._pending(),
            self._turn.now if self._turn is not None else None,
            op.limit,
            op.offset,
        )
        found: list[SearchItem] = []
        for row in rows:
            namespace, key = unpack_text(row["namespace"]), unpack_text(row["key"])
            if op.refresh_ttl and row["ttl"] is not None:
                reads.append(read(namespace, key))
            found.append(
                SearchItem(
                    namespace=_labels(self._seen(namespace)),
                    key=key,
                    value=load_json(row["value"]),
                    created_at=row["created_at"],
                    updated_at=row["updated_at"],
                )
            )
        return found

    async def _list(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        _require_page(op.limit, op.offset)
        if op.max_depth is not None and not 1 <= op.max_depth <= ITEMS:
            raise ValueError(f"max_depth is 1 or more labels, not {op.max_depth}.")
        conditions = []
        for condition in op.match_conditions or ():
            joined(condition.path)
            if condition.match_type not in ("prefix", "suffix"):
                raise ValueError(f"Namespaces are matched by prefix or suffix, not {condition.match_type!r}.")
            conditions.append({"at": condition.match_type, "path": list(condition.path)})
        rows = await self._rows.find(
            "list_namespaces",
            *self._ranges(""),
            pack_json(conditions),
            self._pending(),
            op.max_depth,
            self._live_only,
            op.limit,
            op.offset,
        )
        return [tuple(unpack_text(row["namespace"]).split(".")) for row in rows]

    async def _write(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        if self._turn is not None:
            self._turn.facts.add(changes)
            return
        await self._rows.keep(changes, live_only=self._live_only)

    def _changes(self, op: PutOp) -> Iterator[Change]:
        if not op.namespace:
            raise InvalidNamespaceError("A fact needs a namespace of at least one label.")
        first, *older = (begin + joined(op.namespace) for begin in self._beginnings)
        yield written(first, op.key, op.value, op.ttl)
        yield from (written(namespace, op.key, None, None) for namespace in older)

    def _written(self, namespace: str, key: str) -> Change | None:
        """What the turn has written of a fact."""
        return None if self._turn is None else self._turn.facts.of(namespace, key)

    def _pending(self) -> str:
        return "[]" if self._turn is None else pack_json(last(self._turn.facts.changes))

    def _ranges(self, namespace: str) -> tuple[list[str], list[str]]:
        """Where the stored namespaces under this one begin and end."""
        lows = [pack_text(begin + namespace) for begin in self._beginnings]
        # A full stop ends each label, and the character after it is a slash.
        return lows, [f"{low[:-1]}/" if low else "" for low in lows]

    def _seen(self, namespace: str) -> str:
        begin = next(begin for begin in self._beginnings if namespace.startswith(begin))
        return namespace[len(begin) :]

    @property
    def _live_only(self) -> bool:
        return bool(self.ttl_config and self.ttl_config.get("omit_expired"))


class FactStore(FactsOf):
    """A LangGraph store on asyncpg, for graphs without turns.

        async with FactStore.from_conn_string(dsn) as store:
            await store.setup()
            graph = builder.compile(store=store)

    What a call has written is durable when it returns. It has its namespaces to itself: the facts that the agents of a
    `Moorline` keep of a person (`context.memory`) are not among them, and erasing or exporting a person leaves them
    alone. One object serves any number of threads and event loops at once; its synchronous methods work in threads that
    run no event loop.
    """

    def __init__(
        self,
        source: Pool[Record] | Database,
        *,
        schema: str = "public",
        ttl: TTLConfig | None = None,
        index: object = None,
    ) -> None:
        """Works on a pool of the caller's, which is never closed, or on a Database, which has its own schema. Raises
        ValueError for an `index`: there is no searching by meaning."""
        if index is not None:
            raise ValueError(_NOT_BY_MEANING.format("index"))
        database = source if isinstance(source, Database) else Database(source, schema=schema)
        super().__init__(GroupedRows(database, NOBODY), SyncCalls(database), ttl=ttl)
        self._database = database
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    def from_conn_string(
        cls,
        dsn: str,
        *,
        schema: str = "public",
        ttl: TTLConfig | None = None,
        index: object = None,
        pool_size: int = 5,
        statement_cache_size: int = 100,
    ) -> Self:
        """Works on connections of its own; see `DeviceCheckpointer.from_conn_string`."""
        database = Database(dsn, schema=schema, pool_size=pool_size, statement_cache_size=statement_cache_size)
        return cls(database, ttl=ttl, index=index)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the sweeper, and closes its connections of the running event loop and those of synchronous calls."""
        await self.stop_ttl_sweeper()
        await self._calls.close()
        await self._database.close()

    async def setup(self) -> None:
        """Brings the tables of conversations, which have the facts too, to the newest version, as `moorline migrate`
        does."""
        if self._database.dsn is not None:
            await migrate(self._database.dsn, schema=self._database.schema)
            return
        async with self._database.connection() as connection:
            await apply(cast("Connection[Record]", connection), schema=self._database.schema)

    async def sweep_ttl(self) -> int:
        """Removes all facts that have expired, those of conversations too, and returns how many there were."""
        return await remove_expired(self._database)

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> asyncio.Task[None]:
        """Sweeps every so many minutes, by default those of the TTL configuration, else 5, until `stop_ttl_sweeper` or
        `close`. Where `moorline serve` or `moorline cleanup` runs, that does it already."""
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        minutes = sweep_interval_minutes or configured or 5
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep(minutes * 60), name="moorline-ttl-sweeper")
        return self._sweeping

    async def stop_ttl_sweeper(self) -> None:
        """Ends the sweeper, if there is one."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait([sweeping])

    async def _sweep(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.sweep_ttl()
            except MoorlineError as error:
                logger.warning("Expired facts could not be removed: %s", error)


async def remove_expired(database: Database) -> int:
    """Removes all facts that have expired, and returns how many there were."""
    removed, gone = 0, SWEPT
    while gone >= SWEPT:
        gone = await database.fetchval("expire_facts", SWEPT)
        removed += gone
    return removed


def _conditions(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a filter asks, one field and one comparison at a time."""
    for name, wanted in given.items():
        if isinstance(wanted, Mapping) and wanted and all(str(each).startswith("$") for each in wanted):
            if unknown := wanted.keys() - OPERATORS:
                raise ValueError(f"A filter may ask {', '.join(sorted(OPERATORS))}, not {', '.join(sorted(unknown))}.")
            yield from ({"field": name, "is": operator, "value": value} for operator, value in wanted.items())
        else:
            yield {"field": name, "is": "$eq", "value": wanted}


def _require_page(limit: int, offset: int) -> None:
    if not 0 <= limit <= ITEMS or not 0 <= offset <= FURTHEST:
        raise ValueError(f"A search gives at most {ITEMS:,} items from place 0 on: not {limit} from {offset}.")


def _labels(namespace: str) -> tuple[str, ...]:
    return tuple(namespace.split(".")[:-1])
