"""An event loop in a thread of its own, for threads that run none."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread
from typing import NamedTuple
from weakref import finalize

PATIENCE = 5.0
"""Seconds that whoever ends the loop waits until it has closed its connections."""


class _Running(NamedTuple):
    """A loop that runs, and what ends it when set."""

    loop: asyncio.AbstractEventLoop
    over: asyncio.Event


class LoopThread:
    """Its loop runs from the first use until `end` or until the process ends, and starts again when it is used again:
    after `end`, or in a forked child, which has none of its parent's threads."""

    def __init__(self) -> None:
        self._starting = Lock()
        self._thread: Thread | None = None
        self._running: _Running | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._starting:
            if self._running is None or self._thread is None or not self._thread.is_alive():
                started: Future[_Running] = Future()
                self._thread = Thread(
                    target=asyncio.run, args=(_run(started),), name="moorline-checkpointer", daemon=True
                )
                self._thread.start()
                self._running = started.result()
                finalize(self, _end, self._thread, self._running)
            return self._running.loop

    async def end(self) -> None:
        """Ends the loop and closes what was opened in it. Calls that are still running there are cancelled."""
        with self._starting:
            thread, running = self._thread, self._running
            self._thread = self._running = None
        if thread is not None and running is not None:
            await asyncio.to_thread(_end, thread, running)


async def _run(started: Future[_Running]) -> None:
    running = _Running(asyncio.get_running_loop(), asyncio.Event())
    started.set_result(running)
    await running.over.wait()


def _end(thread: Thread, running: _Running) -> None:
    if thread.is_alive():
        with suppress(RuntimeError):  # it has just closed
            running.loop.call_soon_threadsafe(running.over.set)
        thread.join(PATIENCE)
