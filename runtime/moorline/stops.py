"""Stopping turns that run in this process, whichever process the person's wish came to."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import Context

from moorline.background import Background
from moorline.errors import MoorlineError
from moorline_agents.stopping import Stop
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

POLL = 1.0
"""Seconds between two looks whether another process has stopped a turn; a turn that is shorter is not looked for."""


class RunningTurn:
    """A turn for as long as the block runs it: a class, because a generator would take four times as long."""

    def __init__(
        self, all_running: dict[tuple[str, str], RunningTurn], keys: list[tuple[str, str]], stop: Stop
    ) -> None:
        self._all, self._keys = all_running, keys
        self.stop = stop
        self.since = time.monotonic()

    def __enter__(self) -> Stop:
        for key in self._keys:
            self._all[key] = self
        return self.stop

    def __exit__(self, *raised: object) -> None:
        for key in self._keys:
            if self._all.get(key) is self:  # a stale turn may still run beside the one that replaced it
                del self._all[key]


class Stops:
    """The turns that run in this process. While some run longer than `POLL` seconds, one statement in that time asks
    for all of them."""

    def __init__(self, turns: Turns, background: Background, *, text: str) -> None:
        self._turns = turns
        self._background = background
        self._text = text
        self._running: dict[tuple[str, str], RunningTurn] = {}
        """By the conversation and the stored ID of each message that the turn answers."""
        self._watched = False

    def running(self, turn: OpenTurn) -> RunningTurn:
        """The turn's stop, for as long as the block runs it. A turn that was stopped before is stopped from the
        beginning."""
        if not self._watched:
            self._watched = True
            # In a context of its own: looking is no part of the trace of whichever turn comes first.
            asyncio.get_running_loop().call_later(POLL, self._watch, context=Context())
        stop = Stop(requested=turn.stopped, text=self._text)
        keys = [(turn.device_id, turn.stored_id(message.id)) for message in turn.messages]
        return RunningTurn(self._running, keys, stop)

    async def stop(self, device_id: str, message_id: str) -> bool:
        """Stops the message's turn, now or when it runs. Returns whether the message has not been answered yet."""
        stopped = await self._turns.stop(device_id, message_id)
        if stopped is not None:
            self._request(*stopped)
        return stopped is not None

    def _watch(self) -> None:
        self._watched = bool(self._running)
        if not self._watched:
            return
        asyncio.get_running_loop().call_later(POLL, self._watch)
        before = time.monotonic() - POLL
        long = [key for key, own in self._running.items() if own.since < before and not own.stop.requested]
        if long:
            self._background.start(self._look(long))

    async def _look(self, messages: list[tuple[str, str]]) -> None:
        with suppress(MoorlineError):  # the next look finds out
            for device_id, message_id in await self._turns.stopped(messages):
                self._request(device_id, message_id)

    def _request(self, device_id: str, message_id: str) -> None:
        running = self._running.get((device_id, message_id))
        if running is not None:
            running.stop.request()
