"""Work that goes on without the caller it was begun for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from moorline.errors import MoorlineError, StoreUnavailable

GRACE = 0.5
"""Seconds that a caller who is about to be told of a failure waits for what the failed turn held to be let go."""

PATIENCE = 5.0
"""Seconds for which letting go is tried again while the store is down; after that the lease has to pass."""

PAUSE = 0.2
"""Seconds between two such tries."""

T = TypeVar("T")


class Background:
    """Tasks of one runtime, which waits for them when it is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that no cancellation of its starter cancels."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def release(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Does what ends a claim and may be done twice, and gives its answer. Comes back with None when it could not be
        done, and after `GRACE`; the rest of it then goes on in the background."""
        answer: T | None = None

        async def release() -> None:
            nonlocal answer
            answer = await _patiently(work)

        await asyncio.wait([self.start(release())], timeout=GRACE)
        return answer

    async def finish(self) -> None:
        """Waits until nothing is left to do."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _patiently(work: Callable[[], Awaitable[T]]) -> T | None:
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        try:
            return await work()
        except StoreUnavailable:
            if loop.time() + PAUSE > until:
                return None
            await asyncio.sleep(PAUSE)
        except MoorlineError:
            return None
