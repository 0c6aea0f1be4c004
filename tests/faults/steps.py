"""An event loop that counts its steps, so that a task can be cancelled at any of them."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Steps(selectors.DefaultSelector):
    """A loop's selector, which each step of the loop calls once, when there is nothing left to do but wait."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._task: asyncio.Task[Any] | None = None

    def cancel(self, task: asyncio.Task[Any], *, after: int) -> None:
        """Cancels the task after so many more steps, unless it is done before."""
        self._task, self._left = task, after
        task.add_done_callback(self._forget)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._task is not None:
            if self._left == 0:
                self._task.cancel()
                self._task, timeout = None, 0
            self._left -= 1
        return super().select(timeout)

    def _forget(self, _: asyncio.Task[Any]) -> None:
        self._task = None


def run(main: Callable[[Steps], Coroutine[Any, Any, None]]) -> None:
    """Runs it in a loop that counts its steps."""
    steps = Steps()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(steps)) as runner:
        runner.run(main(steps))
