"""Groups: what many tasks want of the database at one moment goes out as one statement, with one flush of its log."""

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
"""Members of a group at most."""

PAUSE = 0.005
"""Seconds after which an item that could not be taken is sent again; twice as many after each further time."""

LONGEST_PAUSE = 0.1
"""Seconds between two such times at most."""

PATIENCE = 20.0
"""Seconds after which such an item fails."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class _Member(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer | None]
    sent: asyncio.Future[None] | None = None
    """Done when the group that it went with has come back."""


@dataclass(eq=False)
class _Queue(Generic[Item, Answer]):
    """What waits in one event loop."""

    members: list[_Member[Item, Answer]] = field(default_factory=list)
    sender: asyncio.Task[None] | None = None

    def next(self, largest: int) -> list[_Member[Item, Answer]]:
        """Takes out the next group, without those who have gone."""
        waiting = [member for member in self.members if not member.answer.done()]
        self.members = waiting[largest:]
        return waiting[:largest]


class Groups(Generic[Item, Answer]):
    """Answers items in groups. Those that come in while a group is on its way make up the next one, so nobody waits for
    a timer, and an item that comes alone goes alone.

    `send` is given the items of a group and gives an answer each, in the same order, or None for one that could not be
    taken this time. If it raises, each item is sent by itself, because one's fault is not the others'; but not if the
    store is away. A task that is cancelled takes its item back; if that is on its way, the task ends when it has come
    back.
    """

    def __init__(
        self, send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | None]]], *, largest: int = LARGEST
    ) -> None:
        self._send = send
        self._largest = largest
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue[Item, Answer]] = WeakKeyDictionary()

    async def answer(self, item: Item) -> Answer:
        """The item's answer, or what `send` raised for it; `StoreUnavailable` if it could not be taken for `PATIENCE`
        seconds."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE, PAUSE
        while True:
            member = self._join(loop, item)
            try:
                answer = await member.answer
            except asyncio.CancelledError:
                await _come_back(member)
                raise
            if answer is not None:
                return answer
            if loop.time() > until:
                raise StoreUnavailable(f"The device's row has been locked for {PATIENCE:g} s. Try again later.")
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)

    def _join(self, loop: asyncio.AbstractEventLoop, item: Item) -> _Member[Item, Answer]:
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue()
        member: _Member[Item, Answer] = _Member(item, loop.create_future())
        queue.members.append(member)
        if queue.sender is None:
            # In a context of its own: what it sends is not the business of the turn that happens to be first.
            queue.sender = loop.create_task(self._send_all(queue), context=Context())
        return member

    async def _send_all(self, queue: _Queue[Item, Answer]) -> None:
        try:
            while group := queue.next(self._largest):
                await self._send_group(group, queue)
        finally:
            queue.sender = None
            for member in queue.members:  # none, unless the loop ends
                member.answer.cancel()

    async def _send_group(self, group: list[_Member[Item, Answer]], queue: _Queue[Item, Answer]) -> None:
        sent = asyncio.get_running_loop().create_future()
        for member in group:
            member.sent = sent
        try:
            answers = await self._send([member.item for member in group])
        except Exception as error:
            _fail(_hit(error, group, queue), error)
            for member in group:
                if not member.answer.done():  # nothing was done for those who have gone since
                    await self._send_group([member], queue)
        except BaseException:
            for member in group:
                member.answer.cancel()
            raise
        else:
            for member, answer in zip(group, answers, strict=True):
                if not member.answer.done():
                    member.answer.set_result(answer)
        finally:
            sent.set_result(None)


async def _come_back(member: _Member[Any, Any]) -> None:
    """Waits, whatever happens meanwhile, until the member's group is on its way no more."""
    while member.sent is not None and not member.sent.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([member.sent])


def _hit(
    error: Exception, group: Sequence[_Member[Item, Answer]], queue: _Queue[Item, Answer]
) -> Sequence[_Member[Item, Answer]]:
    """Who fares no better by himself: where there was not even a connection, all who wait for one by now."""
    if isinstance(error, StoreUnavailable) and not isinstance(error.__cause__, asyncpg.TransactionRollbackError):
        return group if error.reached else [*group, *queue.members]
    return group if len(group) == 1 else ()


def _fail(group: Sequence[_Member[Item, Answer]], error: Exception) -> None:
    """Each member gets an error of its own: what one does with it is not seen by the others."""
    for member in group:
        if not member.answer.done():
            own = error if len(group) == 1 else copy(error)
            if own is not error:
                own.__cause__ = error
            member.answer.set_exception(own)
