"""`run_manager` and `stream_manager`: a runtime with the environment's settings, built when it is first needed.

There is one per running event loop, because connections belong to a loop. It is closed when `asyncio.run` ends its
loop, so a serverless adapter that makes a loop for each invocation leaks nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from moorline.context import Resume, TurnContext
from moorline.errors import MoorlineError
from moorline.events import Event
from moorline.files import Said
from moorline.reply import Reply
from moorline.runtime import Moorline
from moorline.telling import failed
from moorline_migrations.loops import PerLoop


async def _open() -> Moorline:
    return await Moorline().__aenter__()


_moorlines = PerLoop(_open, Moorline.close)


async def run_manager(message: Said | Resume, context: Mapping[str, Any] | TurnContext) -> Reply:
    """One message in, one reply out: `Moorline.run` on the default runtime."""
    return await (await _moorlines.get()).run(message, context)


async def stream_manager(
    message: Said | Resume, context: Mapping[str, Any] | TurnContext
) -> AsyncGenerator[Event, None]:
    """`run_manager` as a stream of events: `Moorline.stream` on the default runtime. If that cannot be opened, its only
    event is `TurnFailed`."""
    try:
        moorline = await _moorlines.get()
    except MoorlineError as error:
        yield failed(error)
        return
    async with aclosing(moorline.stream(message, context)) as events:
        async for event in events:
            yield event
