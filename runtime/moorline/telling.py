"""Turns what happens in a running turn into the events of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moorline.errors import MoorlineError
from moorline.events import Event, TextDelta, TextWithdrawn, TurnDone, TurnFailed
from moorline.reply import Reply


class Telling:
    """Takes what models write, as a `moorline_agents.run.OnText`, and gives it out as events."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._text = ""
        """The text of the deltas since the last withdrawal."""
        self._turn: asyncio.Future[Reply] | None = None

    def __call__(self, text: str) -> None:
        self._text += text
        self._events.put_nowait(TextDelta(text=text))

    def withdraw(self) -> None:
        if self._text:
            self._text = ""
            self._events.put_nowait(TextWithdrawn())

    def end(self, turn: asyncio.Future[Reply]) -> None:
        """The turn is over, with its reply or an error."""
        self._turn = turn
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        """The events as they come; the last one is `TurnDone` or `TurnFailed`. Errors that are not ours are raised."""
        while (event := await self._events.get()) is not None:
            yield event
        assert self._turn is not None  # noqa: S101 - it has ended
        try:
            reply = await self._turn
        except MoorlineError as error:
            yield TurnFailed(error=error)
            return
        if reply != self._text:
            # The reply was not written to this stream: it was stored before, or made without a model.
            if self._text:
                yield TextWithdrawn()
            yield TextDelta(text=str(reply))
        yield TurnDone(reply=reply)
