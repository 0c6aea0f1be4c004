"""Lanes: the calls of one device that wait in this process, in the order in which they came.

The database decides whose turn it is; a lane only keeps the asking cheap. The first call of a lane asks often, the
others just often enough to keep their places in the queue. Whoever leaves wakes the first, and a call that was woken in
vain wakes the next: a message that was delivered again has an earlier place in the queue than in the lane.
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


class Place:
    """A call's place in a lane."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.woken = False
        """Whether it asked last because it was woken."""


class Lane:
    """One device's."""

    def __init__(self) -> None:
        self.entrance = asyncio.Lock()
        """Held while a message is put into the queue, so that messages arrive there in the order of their calls."""
        self._places: list[Place] = []

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place in the lane, after the others, as long as the block runs."""
        mine = Place()
        self._places.append(mine)
        try:
            yield mine
        finally:
            self._places.remove(mine)
            self._wake(0)

    async def pause(self, mine: Place) -> None:
        """Waits until it is worth asking again."""
        if mine.woken:
            self._wake(self._places.index(mine) + 1)
        seconds = POLL if self._places[0] is mine else RENEW
        try:
            async with asyncio.timeout(seconds):
                await mine.wake.wait()
        except TimeoutError:
            pass
        mine.woken = mine.wake.is_set()
        mine.wake.clear()

    def _wake(self, number: int) -> None:
        if number < len(self._places):
            self._places[number].wake.set()


class Lanes:
    """The lanes that are in use."""

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[str, Lane] = WeakValueDictionary()

    def of(self, device_id: str) -> Lane:
        """The device's lane, for as long as somebody holds it."""
        return self._lanes.setdefault(device_id, Lane())
