"""Slowness: which devices are kept out of batches because they were slow or at fault, and whether it is the store
itself that is slow."""

from __future__ import annotations

import time
from typing import NamedTuple

QUICK = 0.3
"""Seconds that a batch may take; a device that takes longer by itself is slow."""

KEPT_OUT = 60.0
"""Seconds for which a slow or faulty device is kept out of batches, unless it is quick before."""

STORE_SLOW = 10.0
"""Seconds for which batches have no limit once the store was found to be slow."""

SUSPECTS = 8
"""If more devices than that are slow at the same time, it is the store that is slow."""


class _Out(NamedTuple):
    """A device that is kept out of batches."""

    until: float
    slow: bool


class Slowness:
    """What one batcher has learned of its devices."""

    def __init__(self) -> None:
        self._out: dict[str, _Out] = {}
        self._store_until = 0.0

    @property
    def limit(self) -> float | None:
        """Seconds that a batch may take now; None for no limit."""
        return None if time.monotonic() < self._store_until else QUICK

    def concerns(self, device: str) -> bool:
        """Whether the device is kept out of batches now."""
        return device in self._out and time.monotonic() < self._out[device].until

    def keep_out(self, device: str, *, slow: bool) -> None:
        """The device was slow, or at fault. If too many are slow, it is the store: then all are let in."""
        now = time.monotonic()
        self._out = {each: out for each, out in self._out.items() if now < out.until}
        self._out[device] = _Out(now + KEPT_OUT, slow)
        if sum(out.slow for out in self._out.values()) > SUSPECTS:
            self._out = {}
            self._store_until = now + STORE_SLOW

    def let_in(self, device: str) -> None:
        """The device was quick."""
        self._out.pop(device, None)
