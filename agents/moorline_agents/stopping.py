"""Stopping: how a run learns that the person has stopped the turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

STOPPED = "not made; the person stopped the turn"
"""What a model is told of a call that was not made for this reason."""


class Stopped(Exception):
    """The person has stopped the turn: no further model and no further tool is to be called."""


class Stop:
    """Whether the person has stopped a turn; belongs to one run, on one loop."""

    def __init__(self, *, requested: bool = False, text: str = "Stopped.") -> None:
        self.requested = requested
        self.text = text
        """What is said if nothing was said before."""
        self._endings: set[Ending] = set()

    def request(self) -> None:
        """Stops the turn, which ends as soon as it can."""
        self.requested = True
        for ending in self._endings:
            ending.reconsider()

    def check(self) -> None:
        """Raises `Stopped` if the turn is stopped."""
        if self.requested:
            raise Stopped

    def ends(self, when: Callable[[], bool] = lambda: True) -> Ending:
        """`async with stop.ends():` ends the block, wherever it waits, when the turn is stopped, and raises `Stopped`;
        not before `when()` is true, though, which `Ending.reconsider` asks again."""
        return Ending(self._endings, self, when)


class Ending:
    """A block that ends when the turn is stopped."""

    def __init__(self, endings: set[Ending], stop: Stop, when: Callable[[], bool]) -> None:
        self._endings, self._stop, self._when = endings, stop, when
        self._deadline = asyncio.timeout(None)
        self._ended = False

    def reconsider(self) -> None:
        """To be called, on the loop, when the block may have to end."""
        if self._stop.requested and not self._ended and self._when():
            self._ended = True
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        self._endings.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._endings.discard(self)
        self._ended = True
        try:
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Stopped from None
