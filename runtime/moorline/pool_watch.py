"""Telling what the connections of a runtime are doing, again and again while it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from moorline_checkpoint.database import Database
from moorline_checkpoint.pools import PoolUse

EVERY = 1.0
"""Seconds between two looks."""


@runtime_checkable
class PoolWatcher(Protocol):
    """An observer that is also told of connections."""

    def pool_used(self, runtime: object, use: PoolUse | None) -> None:
        """What the connections of an open runtime are doing right now; None once it is closed. Neither raises nor
        waits."""


class PoolWatch:
    """Looks at the connections of a database as long as somebody watches."""

    def __init__(self, database: Database, observers: Sequence[Any]) -> None:
        """To be called on the loop of the turns."""
        self._database = database
        self._watchers = [each for each in observers if isinstance(each, PoolWatcher)]
        self._task = asyncio.create_task(self._look()) if self._watchers else None

    async def close(self) -> None:
        """Stops looking, and says that there is nothing left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._tell(None)

    async def _look(self) -> None:
        while True:
            self._tell(self._database.pool_use())
            await asyncio.sleep(EVERY)

    def _tell(self, use: PoolUse | None) -> None:
        for watcher in self._watchers:
            watcher.pool_used(self, use)
