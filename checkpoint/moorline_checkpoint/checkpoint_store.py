"""Storing without a turn: what the threads of a process write at the same moment goes out as one statement, and what
they read as another; see `batcher`.

Waiting calls hold as few objects as possible: the more there are, the longer Python's garbage collections take.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from moorline_checkpoint.batcher import Batcher
from moorline_checkpoint.rows import CheckpointRow, CheckpointRows, ValueRow, WriteRow, checkpoint_rows

if TYPE_CHECKING:
    from asyncpg import Record

    from moorline_checkpoint.database import Database

MEMBERS = 100
"""The most calls that go out together."""

LARGEST = 16 * 2**20
"""The most bytes of serialised values in one statement, unless one call alone stores more."""

_VALUE = len(ValueRow._fields)
_WRITE = len(WriteRow._fields)


class _Put(NamedTuple):
    """What one call stores: a checkpoint with the values that are new with it, or the writes of a task."""

    key: str
    """A statement never has two calls of one key, and takes its calls in the order of their keys."""
    device: str
    checkpoint: CheckpointRow | None
    values: tuple[Any, ...]
    """The fields of all rows, row by row."""
    writes: tuple[Any, ...]
    """The same."""
    replace: bool

    @property
    def size(self) -> int:
        """Bytes of the serialised values."""
        return sum(map(len, self.values[_VALUE - 1 :: _VALUE])) + sum(map(len, self.writes[_WRITE - 1 :: _WRITE]))


class _Wanted(NamedTuple):
    """One read of a batch, in the order in which the statement takes the columns."""

    device: str
    ns: str
    id: str | None


class CheckpointStore:
    """Writes and reads the rows of checkpoints. All names are packed.

    What a call has written is durable when it returns. Every method raises `StoreUnavailable` or `SchemaMismatch` when
    the database does; a refused call does not affect the others.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._puts = Batcher(
            self._put_all,
            key=lambda put: put.device,
            traced=lambda: database.tracing.statement("put"),
            largest=MEMBERS,
        )
        self._gets: Batcher[_Wanted, Record | Literal[False]] = Batcher(
            self._get_all,
            key=lambda wanted: wanted.device,
            traced=lambda: database.tracing.statement("get_checkpoints"),
            largest=MEMBERS,
        )

    def put(self, device: str, row: CheckpointRow, values: Sequence[ValueRow]) -> Coroutine[Any, Any, object]:
        """Stores a checkpoint and the values that are new with it. It becomes the head of its namespace if a head is
        recorded there."""
        key = f"{device}\0{row.ns}\0{row.id}"
        return self._puts.answer(_Put(key, device, row, tuple(chain.from_iterable(sorted(values))), (), False))

    def put_writes(self, device: str, rows: Sequence[WriteRow], *, replace: bool) -> Coroutine[Any, Any, object]:
        """Stores what a task wrote on top of a checkpoint, at least one row; `replace` says whether it replaces what
        the task wrote there before."""
        key = f"{device}\0{rows[0].ns}\0{rows[0].id}\0{rows[0].task}"
        return self._puts.answer(_Put(key, device, None, (), tuple(chain.from_iterable(rows)), replace))

    async def get(self, device: str, ns: str, own_id: str | None) -> CheckpointRows | None:
        """The checkpoint asked for, else the recorded head of its namespace, else the latest."""
        record = await self._gets.answer(_Wanted(device, ns, own_id))
        return None if record is False else checkpoint_rows(record)

    async def get_all(self, keys: Sequence[tuple[str, str, str]]) -> list[CheckpointRows | None]:
        """The checkpoints with these devices, namespaces and IDs, in this order, in one statement; None for one that is
        gone."""
        wanted = [_Wanted(*key) for key in keys]
        found = await self._get_all(wanted, None) if wanted else []
        return [None if record is False else checkpoint_rows(record) for record in found]

    async def _put_all(self, puts: Sequence[_Put], within: float | None) -> list[Literal[True] | None]:
        answers: list[Literal[True] | None] = []
        for part in _parts(puts):
            records = await self._database.fetch("put", *_columns(sorted(part)), within=within)
            locked = {record["device"] for record in records}
            answers += [None if put.checkpoint and put.device in locked else True for put in part]
        return answers

    async def _get_all(self, wanted: Sequence[_Wanted], within: float | None) -> list[Record | Literal[False]]:
        devices, namespaces, ids = zip(*wanted, strict=True)
        records = await self._database.fetch("get_checkpoints", devices, namespaces, ids, within=within)
        found = {record["place"]: record for record in records}
        return [found.get(place, False) for place in range(1, len(wanted) + 1)]


def _parts(puts: Sequence[_Put]) -> Iterator[list[_Put]]:
    """The calls for each statement, in order; calls of one key go into successive statements."""
    part: dict[str, _Put] = {}
    room = LARGEST
    for put in puts:
        size = put.size
        if part and (size > room or put.key in part):
            yield list(part.values())
            part, room = {}, LARGEST
        part[put.key] = put
        room -= size
    yield list(part.values())


def _columns(puts: Sequence[_Put]) -> Iterator[object]:
    """As the statement takes them."""
    checkpoints = [(put.device, put.checkpoint) for put in puts if put.checkpoint]
    devices = [device for device, _ in checkpoints]
    yield devices
    for field in range(len(CheckpointRow._fields)):
        yield [row[field] for _, row in checkpoints]
    yield [put.device for put in puts for _ in put.values[::_VALUE]]
    for field in range(_VALUE):
        yield [cell for put in puts for cell in put.values[field::_VALUE]]
    yield [put.device for put in puts for _ in put.writes[::_WRITE]]
    for field in range(_WRITE):
        yield [cell for put in puts for cell in put.writes[field::_WRITE]]
    yield [put.replace for put in puts for _ in put.writes[::_WRITE]]
