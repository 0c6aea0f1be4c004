"""Work that continues after its caller has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from moorline.errors import StoreUnavailable

GRACE = 0.5
"""Seconds that an error waits for its turn to be released before it is raised to the caller."""

PATIENCE = 5.0
"""Seconds for which a release is retried while the store is down; after that the lease has to expire."""

PAUSE = 0.2
"""Seconds between two of these attempts."""

T = TypeVar("T")


class Background:
    """The background tasks of one runtime, which waits for them when it is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that is not cancelled when the code that started it is."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def release(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Runs `work`, which ends a claim and can safely run twice, and returns its result. Returns None if it failed,
        or if it takes longer than `GRACE`: it then continues in the background."""
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
        except Exception:  # the error that made it necessary is the one to raise
            return None
