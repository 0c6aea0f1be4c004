"""The events of a turn as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from moorline.events import Event, TurnFailed
from moorline.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

EVENT_STREAM = "text/event-stream"

KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment tells both sides that the connection stands."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""So that no proxy holds events back."""


class EventFeed:
    """The events of one turn, read by a task of their own: neither a slow client nor one that goes away holds up the
    turn."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(events))

    async def begin(self) -> Event | None:
        """The first event, or None if there is none for `KEEP_ALIVE` seconds. Raises the error of a turn that failed
        before anything was told of it."""
        first = await self._next()
        if isinstance(first, TurnFailed):
            self.close()
            raise first.error
        return first

    async def lines(self, first: Event | None) -> AsyncIterator[bytes]:
        """The stream, from its first event to its last one."""
        event = first
        try:
            while not self._reading.done() or not self._events.empty() or event is not None:
                yield KEEPALIVE_COMMENT if event is None else _line(event)
                event = await self._next()
        finally:
            self.close()

    def close(self) -> None:
        """Reads no further. The turn goes on."""
        self._reading.cancel()

    async def _next(self) -> Event | None:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                event = await self._events.get()
        except TimeoutError:
            return None
        if event is None:
            await self._reading  # raises what it has failed with
        return event

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._events.put_nowait(event)
        finally:
            self._events.put_nowait(None)


def _line(event: Event) -> bytes:
    told = event.to_json()
    if isinstance(event, TurnFailed):
        told = _with_detail(told, event)
    data = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(event=event.type, id=str(event.seq), data_str=data)


def _with_detail(told: dict[str, Any], event: TurnFailed) -> dict[str, Any]:
    """The event with what a problem would tell of its error."""
    return {**told, "error": {**told["error"], "message": Problem.of(event.error).detail}}
