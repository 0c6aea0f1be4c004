"""Answers that are asked for again within a second: they come from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

WITHIN = 1.0
"""Seconds for which an answer is given again, from when it was asked for."""

T = TypeVar("T")


class Recent:
    """Asks each question at most once in `WITHIN`, however many ask at the same time. What is given again is the same
    object, so it must not be changed. Errors are not kept."""

    def __init__(self) -> None:
        self._asked: dict[tuple[asyncio.AbstractEventLoop, Hashable], tuple[float, asyncio.Future[Any]]] = {}

    async def get(self, question: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, which is at most `WITHIN` seconds older than it would be otherwise. A caller that is cancelled
        harms no other."""
        now, key = time.monotonic(), (asyncio.get_running_loop(), question)
        self._asked = {key: (at, answer) for key, (at, answer) in self._asked.items() if now - at < WITHIN}
        if key not in self._asked:
            self._asked[key] = now, asyncio.ensure_future(ask())
            self._asked[key][1].add_done_callback(lambda answer: self._forget_failed(key, answer))
        answer: T = await asyncio.shield(self._asked[key][1])
        return answer

    def _forget_failed(self, key: tuple[asyncio.AbstractEventLoop, Hashable], answer: asyncio.Future[Any]) -> None:
        failed = answer.cancelled() or answer.exception() is not None
        if failed and key in self._asked and self._asked[key][1] is answer:
            del self._asked[key]
