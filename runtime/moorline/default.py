"""`run_manager` and `stream_manager`: the runtime of the environment, built when it is first needed.

There is one per running event loop, because connections belong to a loop. It is closed when `asyncio.run` ends its
loop, so a serverless adapter that makes a loop for each invocation leaks nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from moorline.context import Resume, TurnContext
from moorline.events import Event
from moorline.reply import Reply
from moorline.runtime import Moorline


@dataclass
class _Default:
    """The runtime of one loop; `lifetime` is the generator that the loop closes when it ends."""

    opening: asyncio.Lock
    moorline: Moorline | None = None
    lifetime: AsyncGenerator[None, None] | None = None


_defaults: dict[asyncio.AbstractEventLoop, _Default] = {}
"""Of the loops that have not ended. A weak dictionary would keep them all: a runtime refers to its loop."""


async def run_manager(message: str | Resume, context: Mapping[str, Any] | TurnContext) -> Reply:
    """One message in, one reply out: `Moorline.run` on the runtime of the environment."""
    return await (await _moorline()).run(message, context)


async def stream_manager(message: str | Resume, context: Mapping[str, Any] | TurnContext) -> AsyncIterator[Event]:
    """`run_manager` as a stream of events: `Moorline.stream` on the runtime of the environment."""
    moorline = await _moorline()
    async for event in moorline.stream(message, context):
        yield event


async def _moorline() -> Moorline:
    loop = asyncio.get_running_loop()
    if loop not in _defaults:
        for ended in [other for other in list(_defaults) if other.is_closed()]:  # without having closed anything
            _defaults.pop(ended, None)
        _defaults[loop] = _Default(opening=asyncio.Lock())
    default = _defaults[loop]
    async with default.opening:
        if default.moorline is None:
            moorline = await Moorline().__aenter__()
            # asyncio.run closes the loop's async generators before the loop itself: the one hook a library has.
            default.lifetime = _closing(moorline)
            await anext(default.lifetime)
            default.moorline = moorline
    return default.moorline


async def _closing(moorline: Moorline) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        _defaults.pop(asyncio.get_running_loop(), None)
        await moorline.close()
