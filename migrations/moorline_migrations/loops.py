"""What belongs to an event loop and ends with it: connections, and objects that hold them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Held(Generic[T]):
    """A loop's value, and the generator whose closing ends it."""

    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    value: T | None = None
    lifetime: AsyncGenerator[None, None] | None = None
    ending: asyncio.Task[None] | None = None


class PerLoop(Generic[T]):
    """One value for each event loop, made on first use there, and ended with the loop or by `end`."""

    def __init__(self, make: Callable[[], Awaitable[T]], end: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._end = end
        self._held: dict[asyncio.AbstractEventLoop, _Held[T]] = {}
        """Values of the loops that have not ended. A weak dictionary would keep them all, because a value refers to its
        loop."""

    async def get(self) -> T:
        """The running loop's value. If making it raises, so does this, and the next call tries again."""
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is None:
            for ended in [other for other in list(self._held) if other.is_closed()]:  # without ending anything
                self._held.pop(ended, None)
            held = self._held[loop] = _Held()
        if held.value is None:
            async with held.making:
                if held.value is None:
                    value = await self._make()
                    # asyncio.run closes its loop's asynchronous generators before the loop itself: the only hook that a
                    # library has.
                    held.lifetime = self._of_loop(loop, held)
                    await anext(held.lifetime)
                    held.value = value
        return held.value

    def made(self) -> list[T]:
        """The values of all loops that have not ended."""
        return [
            held.value for loop, held in list(self._held.items()) if held.value is not None and not loop.is_closed()
        ]

    async def end(self) -> None:
        """Ends the running loop's value, if it has one."""
        held = self._held.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await self._ended(held)

    async def _of_loop(self, loop: asyncio.AbstractEventLoop, held: _Held[T]) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._ended(held)
            if self._held.get(loop) is held:
                del self._held[loop]

    async def _ended(self, held: _Held[T]) -> None:
        """The value's user and the ending loop may both end it, even at the same time."""
        if held.value is None:
            return
        if held.ending is None:
            held.ending = asyncio.create_task(_run(self._end, held.value))
        if not held.ending.done():
            await asyncio.wait([held.ending])


async def _run(end: Callable[[T], Awaitable[None]], value: T) -> None:
    await end(value)
