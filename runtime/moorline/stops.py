"""Stopping turns that run in this process, whichever process the person's wish came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass

from moorline.background import Background
from moorline.errors import MoorlineError
from moorline_agents.stopping import Stop
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

POLL = 1.0
"""Seconds between two looks whether another process has stopped a turn; a turn that is shorter is not looked for."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A turn that runs."""

    stop: Stop
    since: float


class Stops:
    """The turns that run in this process. While some run longer than `POLL` seconds, one statement in that time asks
    for all of them."""

    def __init__(self, turns: Turns, background: Background, *, text: str) -> None:
        self._turns = turns
        self._background = background
        self._text = text
        self._running: dict[tuple[str, str], _Running] = {}
        """By the device and each message that the turn answers."""
        self._watched = False

    @contextmanager
    def running(self, turn: OpenTurn) -> Iterator[Stop]:
        """The turn's stop, for as long as the block runs it. A turn that was stopped before is stopped from the
        beginning."""
        stop = Stop(requested=turn.stopped, text=self._text)
        own = _Running(stop=stop, since=time.monotonic())
        keys = [(turn.device_id, message.id) for message in turn.messages]
        self._running.update(dict.fromkeys(keys, own))
        if not self._watched:
            self._watched = True
            # In a context of its own: looking is no part of the trace of whichever turn comes first.
            asyncio.get_running_loop().call_later(POLL, self._watch, context=Context())
        try:
            yield stop
        finally:
            for key in keys:
                if self._running.get(key) is own:  # a stale turn may still run beside the one that replaced it
                    del self._running[key]

    async def stop(self, device_id: str, message_id: str) -> bool:
        """Stops the message's turn, now or when it runs. Returns whether the message has not been answered yet."""
        stopped = await self._turns.stop(device_id, message_id)
        if stopped:
            self._request(device_id, message_id)
        return stopped

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
