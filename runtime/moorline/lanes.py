"""Lanes: the calls of one device that wait in this process, in the order in which they came.

The database decides whose turn it is; a lane only keeps the asking cheap. The first call of a lane asks often, the
others just often enough to keep their places in the queue, and whoever leaves wakes the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from moorline_checkpoint.turns import WAITER

POLL = 0.1
"""Seconds between two askings of the first call of a lane."""

RENEW = WAITER / 3
"""Seconds between two askings of the others."""


class Lane:
    """One device's."""

    def __init__(self) -> None:
        self.entrance = asyncio.Lock()
        """Held while a message is put into the queue, so that messages arrive there in the order of their calls."""
        self._places: list[asyncio.Event] = []

    @contextmanager
    def place(self) -> Iterator[asyncio.Event]:
        """A place in the lane, after the others, as long as the block runs."""
        mine = asyncio.Event()
        self._places.append(mine)
        try:
            yield mine
        finally:
            self._places.remove(mine)
            if self._places:
                self._places[0].set()

    async def pause(self, mine: asyncio.Event) -> None:
        """Waits until it is worth asking again."""
        seconds = POLL if self._places[0] is mine else RENEW
        try:
            async with asyncio.timeout(seconds):
                await mine.wait()
        except TimeoutError:
            pass
        mine.clear()


class Lanes:
    """The lanes that are in use."""

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[str, Lane] = WeakValueDictionary()

    def of(self, device_id: str) -> Lane:
        """The device's lane, for as long as somebody holds it."""
        return self._lanes.setdefault(device_id, Lane())
