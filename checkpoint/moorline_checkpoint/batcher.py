"""Batching: what many tasks ask of the database at the same moment goes out as one statement, with one flush of its
log."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import Context
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import asyncpg

from moorline_checkpoint.database import SlowStatement
from moorline_checkpoint.slowness import QUICK, Slowness
from moorline_checkpoint.watching import Statement
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
    size: int = 0
    """Of that batch."""


@dataclass(eq=False)
class _Queue(Generic[Item, Answer]):
    """The items that wait in one event loop."""

    waiting: list[_Pending[Item, Answer]] = field(default_factory=list)
    sender: asyncio.Task[None] | None = None
    aside: list[_Pending[Item, Answer]] = field(default_factory=list)
    """Items of slow devices, which go out one by one beside the batches."""
    aside_sender: asyncio.Task[None] | None = None

    def next(self, largest: int) -> list[_Pending[Item, Answer]]:
        """Removes and returns the next batch, without the items whose tasks have gone."""
        waiting = [pending for pending in self.waiting if not pending.answer.done()]
        self.waiting = waiting[largest:]
        return waiting[:largest]


class Batcher(Generic[Item, Answer]):
    """Answers items in batches. Items that come in while a batch is on its way make up the next one, so nothing waits
    for a timer, and a single item goes alone.

    `send` takes the items of a batch and the seconds that it may take (None: no limit), and returns an answer for each,
    in the same order, or None for one that could not be taken this time. If it raises, each item is sent by itself, so
    that one item's fault does not fail the others; but not if the store is unavailable. A cancelled task takes its item
    back; if the item is already on its way, the task ends when the batch has come back.

    A slow device holds up only itself: a batch that takes longer than its limit is broken off, with `SlowStatement`,
    and each item is sent by itself. One that is slow then too goes out again beside the batches, one such item at a
    time and without a limit, and so do all items of its device (`key`) as long as they are slow. If it is the store
    that is slow, nothing is gained by that, and batches have no limit for a while; see `slowness`.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item], float | None], Awaitable[Sequence[Answer | None]]],
        *,
        key: Callable[[Item], str],
        traced: Callable[[], AbstractContextManager[Statement]],
        largest: int = LARGEST,
    ) -> None:
        """A task's wait for its answer is a block of `traced`."""
        self._send = send
        self._key = key
        self._traced = traced
        self._largest = largest
        self._slowness = Slowness()
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue[Item, Answer]] = WeakKeyDictionary()

    async def answer(self, item: Item) -> Answer:
        """The item's answer. Raises what `send` raised for it, and `StoreUnavailable` if it could not be taken for
        `PATIENCE` seconds."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE, PAUSE
        with self._traced() as statement:
            while True:
                pending = self._enqueue(loop, item)
                try:
                    answer = await pending.answer
                except asyncio.CancelledError:
                    await _come_back(pending)
                    raise
                statement.grouped(pending.size)
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
        if self._slowness.concerns(self._key(item)):
            self._put_aside(pending, queue)
        else:
            self._put(pending, queue)
        return pending

    def _put(self, pending: _Pending[Item, Answer], queue: _Queue[Item, Answer]) -> None:
        queue.waiting.append(pending)
        if queue.sender is None:
            # In a context of its own: what it sends does not belong to the turn whose task happens to start it.
            queue.sender = asyncio.get_running_loop().create_task(self._send_all(queue), context=Context())

    def _put_aside(self, pending: _Pending[Item, Answer], queue: _Queue[Item, Answer]) -> None:
        queue.aside.append(pending)
        if queue.aside_sender is None:
            queue.aside_sender = asyncio.get_running_loop().create_task(self._send_aside(queue), context=Context())

    async def _send_all(self, queue: _Queue[Item, Answer]) -> None:
        try:
            while batch := queue.next(self._largest):
                await self._send_batch(batch, queue, within=self._slowness.limit)
        finally:
            queue.sender = None
            for pending in queue.waiting:  # none, unless the loop ends
                pending.answer.cancel()

    async def _send_aside(self, queue: _Queue[Item, Answer]) -> None:
        try:
            while queue.aside:
                pending = queue.aside.pop(0)
                if self._slowness.limit is None:
                    self._put(pending, queue)
                elif not pending.answer.done():
                    began = time.monotonic()
                    await self._send_batch([pending], queue, within=None)
                    if time.monotonic() - began < QUICK and _answered(pending):
                        self._slowness.let_in(self._key(pending.item))
        finally:
            queue.aside_sender = None
            for pending in queue.aside:  # none, unless the loop ends
                pending.answer.cancel()

    async def _send_batch(
        self, batch: Sequence[_Pending[Item, Answer]], queue: _Queue[Item, Answer], *, within: float | None
    ) -> None:
        sent = asyncio.get_running_loop().create_future()
        for pending in batch:
            pending.sent, pending.size = sent, len(batch)
        try:
            answers = await self._send([pending.item for pending in batch], within)
        except SlowStatement:
            await self._send_apart(batch, queue, within=within)
        except Exception as error:
            _fail(_hopeless(error, batch, queue), error)
            if len(batch) == 1 and not isinstance(error, StoreUnavailable):
                self._slowness.keep_out(self._key(batch[0].item), slow=False)
            await self._send_apart(batch, queue, within=within)
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

    async def _send_apart(
        self, batch: Sequence[_Pending[Item, Answer]], queue: _Queue[Item, Answer], *, within: float | None
    ) -> None:
        """Sends each by itself that has no answer yet; nothing was done for those whose tasks have gone."""
        for pending in batch:
            if pending.answer.done():
                continue
            if len(batch) == 1:
                self._slowness.keep_out(self._key(pending.item), slow=True)
                self._put_aside(pending, queue)
            elif within is not None and self._slowness.limit is None:
                self._put(pending, queue)
            else:
                await self._send_batch([pending], queue, within=within)


def _answered(pending: _Pending[Any, Any]) -> bool:
    answer = pending.answer
    return answer.done() and not answer.cancelled() and answer.exception() is None


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
