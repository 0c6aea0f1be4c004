"""Waiters: the calls that wait for a device in this process, in the order in which they came, and how many may.

The database decides whose turn it is; this only keeps the polling cheap. The first waiter of a device polls often, the
others just often enough to keep their places in the queue. A waiter that leaves wakes the first one. A waiter that was
woken in vain wakes the next, because a redelivered message has an earlier place in the queue than among the waiters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self
from weakref import WeakValueDictionary

from moorline_checkpoint.turns import WAITER_SECONDS

POLL = 0.1
"""Seconds between two polls of a device's first waiter."""

RENEW = WAITER_SECONDS / 3
"""Seconds between two polls of the others."""

FULL = 1.0
"""Seconds after which a message may be sent again that was refused without asking the database."""


class Waiter:
    """A call that waits for its device, as long as the block of `DeviceWaiters.join` runs."""

    def __init__(self, device: DeviceWaiters) -> None:
        self._device = device
        self.wake = asyncio.Event()
        self.woken = False
        """Whether its last poll came because it was woken."""

    def __enter__(self) -> Self:
        self._device._waiters.append(self)
        return self

    def __exit__(self, *raised: object) -> None:
        self._device._waiters.remove(self)
        self._device._wake(0)


class DeviceWaiters:
    """The waiters of one device."""

    def __init__(self) -> None:
        self.entrance = asyncio.Lock()
        """Held while a message is put into the queue, so that messages arrive there in the order of their calls."""
        self._calls = 0
        self._waiters: list[Waiter] = []

    def full(self, queue_max: int) -> bool:
        """Whether there are already so many calls that, beside the one that runs, `queue_max` wait: the database would
        refuse another message."""
        return self._calls > queue_max

    @contextmanager
    def call(self) -> Iterator[None]:
        """Counts a call of the device for as long as the block runs."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    def join(self) -> Waiter:
        """A waiter that joins behind the others, for as long as its block runs."""
        return Waiter(self)

    async def pause(self, waiter: Waiter) -> None:
        """Returns when it is time to poll again."""
        if waiter.woken:
            self._wake(self._waiters.index(waiter) + 1)
        seconds = POLL if self._waiters[0] is waiter else RENEW
        try:
            async with asyncio.timeout(seconds):
                await waiter.wake.wait()
        except TimeoutError:
            pass
        waiter.woken = waiter.wake.is_set()
        waiter.wake.clear()

    def _wake(self, number: int) -> None:
        if number < len(self._waiters):
            self._waiters[number].wake.set()


class Waiters:
    """The waiters of all devices."""

    def __init__(self) -> None:
        self._devices: WeakValueDictionary[str, DeviceWaiters] = WeakValueDictionary()

    def of(self, device_id: str) -> DeviceWaiters:
        """The device's waiters; the same object for as long as anything refers to it."""
        found = self._devices.get(device_id)
        return self._devices.setdefault(device_id, DeviceWaiters()) if found is None else found
