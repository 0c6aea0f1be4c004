"""Observers: callables that get the events of all turns of a runtime, and can harm none of them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

from moorline.events import EVENT_TYPES, Event

logger = logging.getLogger("moorline.observers")

Observer = Callable[[Event], Awaitable[None] | None]
"""Gets one event. If it is async, it runs on the loop of the turns and must not block; otherwise in a thread of its
own. If it has an attribute `takes`, types of events, it gets those only."""

MOST = 10_000
"""Events that may wait for an observer; more are dropped."""

DELAY = 0.05
"""The most seconds until an idle observer on the loop gets an event."""

PATIENCE = 5.0
"""Seconds that closing waits for observers to get what was told."""


class Observers:
    """The observers of an open runtime. Each gets the events one after another, in the order in which they were told,
    no matter how long the others take. What it raises is logged once; so is that it falls behind."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """To be called on the loop of the turns."""
        self._watches = [_OnLoop(each) if _is_async(each) else _InThread(each) for each in observers]
        self.hears: dict[type[Event], list[Callable[[Event], None]]] = {}
        """What has to be given the events of each type, on the loop of the turns."""
        for observer, watch in zip(observers, self._watches, strict=True):
            for kind in getattr(observer, "takes", EVENT_TYPES):
                self.hears.setdefault(kind, []).append(watch.hear)

    async def close(self) -> None:
        """Waits until all events have been seen, but no longer than `PATIENCE`."""
        await asyncio.gather(*(watch.close() for watch in self._watches))


class _Watch:
    """What goes wrong with one observer, each kind logged once."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._logged: set[str] = set()

    def failed(self, error: Exception) -> None:
        # Only the kind of error is logged: its text may quote the conversation.
        self._log(f"raised {type(error).__name__}. It goes on with the next event, and no turn is harmed")

    def behind(self) -> None:
        self._log(f"falls behind: {MOST} events wait for it, and others are dropped until it has caught up")

    def unseen(self) -> None:
        self._log(f"has not seen all events {PATIENCE:g} s after the last one, and is left behind")

    def _log(self, what: str) -> None:
        if what not in self._logged:
            self._logged.add(what)
            name = getattr(self._observer, "__qualname__", type(self._observer).__qualname__)
            logger.error("Observer %s %s. This is logged once.", name, what)


class _OnLoop(_Watch):
    """Wakes up once for all that is told within `DELAY`: waking up costs more than an event."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(observer)
        self._events: deque[Event | None] = deque()
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._waking = False
        self._task = asyncio.create_task(self._run())

    def hear(self, event: Event) -> None:
        if len(self._events) >= MOST:
            self.behind()
            return
        self._events.append(event)
        if not self._waking:
            self._waking = True
            self._loop.call_later(DELAY, self._told.set)

    async def close(self) -> None:
        self._events.append(None)
        self._told.set()
        await asyncio.wait([self._task], timeout=PATIENCE)
        if not self._task.done():
            self.unseen()
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)

    async def _run(self) -> None:
        observer = cast("Callable[[Event], Awaitable[None]]", self._observer)
        while True:
            await self._told.wait()
            self._told.clear()
            self._waking = False
            while self._events:
                event = self._events.popleft()
                if event is None:
                    return
                try:
                    await observer(event)
                except Exception as error:
                    self.failed(error)


class _InThread(_Watch):
    def __init__(self, observer: Observer) -> None:
        super().__init__(observer)
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        # One that never returns must not keep the process from ending.
        Thread(target=self._run, name="moorline observer", daemon=True).start()

    def hear(self, event: Event) -> None:
        if self._events.qsize() < MOST:
            self._events.put(event)
        else:
            self.behind()

    async def close(self) -> None:
        self._events.put(None)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ended.wait()
        except TimeoutError:
            self.unseen()

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._observer(event)
            except Exception as error:
                self.failed(error)
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._ended.set)


def _is_async(observer: Any) -> bool:
    return inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(getattr(observer, "__call__", None))  # noqa: B004
