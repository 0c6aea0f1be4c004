"""Batching: what many tasks ask of the database at the same moment goes out as one statement, with one flush of its
log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import asyncpg

from moorline_migrations.errors import StoreUnavailable

LARGEST = 32
"""The most items in a batch."""

PAUSE = 0.005
"""Seconds after which an item that could not be taken is sent again; doubled each time."""

LONGEST_PAUSE = 0.1
"""The most seconds between two such attempts."""

PATIENCE = 20.0
"""Seconds after which such an item fails."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class _Pending(Generic[Item, Answer]):
    """An item that waits for its answer."""

    item: Item
    answer: asyncio.Future[Answer | None]
    sent: asyncio.Future[None] | None = None
    """Done when the batch that the item went out with has come back."""


@dataclass(eq=False)
class _Queue(Generic[Item, Answer]):
    """The items that wait in one event loop."""

    waiting: list[_Pending[Item, Answer]] = field(default_factory=list)
    sender: asyncio.Task[None] | None = None

    def next(self, largest: int) -> list[_Pending[Item, Answer]]:
        """Removes and returns the next batch, without the items whose tasks have gone."""
        waiting = [pending for pending in self.waiting if not pending.answer.done()]
        self.waiting = waiting[largest:]
        return waiting[:largest]


class Batcher(Generic[Item, Answer]):
    """Answers items in batches. Items that come in while a batch is on its way make up the next one, so nothing waits
    for a timer, and a single item goes alone.

    `send` takes the items of a batch and returns an answer for each, in the same order, or None for one that could not
    be taken this time. If it raises, each item is sent by itself, so that one item's fault does not fail the others;
    but not if the store is unavailable. A cancelled task takes its item back; if the item is already on its way, the
    task ends when the batch has come back.
    """

    def __init__(
        self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | None]]], *, largest: int = LARGEST
    ) -> None:
        self._send = send
        self._largest = largest
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue[Item, Answer]] = WeakKeyDictionary()

    async def answer(self, item: Item) -> Answer:
        """The item's answer. Raises what `send` raised for it, and `StoreUnavailable` if it could not be taken for
        `PATIENCE` seconds."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE, PAUSE
        while True:
            pending = self._enqueue(loop, item)
            try:
                answer = await pending.answer
            except asyncio.CancelledError:
                await _come_back(pending)
                raise
            if answer is not None:
                return answer
            if loop.time() > until:
                raise StoreUnavailable(f"The device's row has been locked for {PATIENCE:g} s. Try again later.")
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _enqueue(self, loop: asyncio.AbstractEventLoop, item: Item) -> _Pending[Item, Answer]:
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue()
        pending: _Pending[Item, Answer] = _Pending(item, loop.create_future())
        queue.waiting.append(pending)
        if queue.sender is None:
            # In a context of its own: what it sends does not belong to the turn whose task happens to start it.
            queue.sender = loop.create_task(self._send_all(queue), context=Context())
        return pending

    async def _send_all(self, queue: _Queue[Item, Answer]) -> None:
        try:
            while batch := queue.next(self._largest):
                await self._send_batch(batch, queue)
        finally:
            queue.sender = None
            for pending in queue.waiting:  # none, unless the loop ends
                pending.answer.cancel()

    async def _send_batch(self, batch: list[_Pending[Item, Answer]], queue: _Queue[Item, Answer]) -> None:
        sent = asyncio.get_running_loop().create_future()
        for pending in batch:
            pending.sent = sent
        try:
            answers = await self._send([pending.item for pending in batch])
        except Exception as error:
            _fail(_hopeless(error, batch, queue), error)
            for pending in batch:
                if not pending.answer.done():  # nothing was done for tasks that have gone since
                    await self._send_batch([pending], queue)
        except BaseException:
            for pending in batch:
                pending.answer.cancel()
            raise
        else:
            for pending, answer in zip(batch, answers, strict=True):
                if not pending.answer.done():
                    pending.answer.set_result(answer)
        finally:
            sent.set_result(None)


async def _come_back(pending: _Pending[Any, Any]) -> None:
    """Waits until the item's batch is no longer on its way, even if cancelled meanwhile."""
    while pending.sent is not None and not pending.sent.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([pending.sent])


def _hopeless(
    error: Exception, batch: Sequence[_Pending[Item, Answer]], queue: _Queue[Item, Answer]
) -> Sequence[_Pending[Item, Answer]]:
    """The items that would fail again if sent alone; if there was not even a connection, all that wait by now."""
    if isinstance(error, StoreUnavailable) and not isinstance(error.__cause__, asyncpg.TransactionRollbackError):
        return batch if error.reached else [*batch, *queue.waiting]
    return batch if len(batch) == 1 else ()


def _fail(batch: Sequence[_Pending[Item, Answer]], error: Exception) -> None:
    """Each item gets its own error, so that what one task does with it does not affect the others."""
    for pending in batch:
        if not pending.answer.done():
            own = error if len(batch) == 1 else copy(error)
            if own is not error:
                own.__cause__ = error
            pending.answer.set_exception(own)
