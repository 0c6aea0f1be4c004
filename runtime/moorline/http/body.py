"""The body of a request: bounded in bytes and in time before anything reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from moorline.http.errors import BodyTooLarge, BodyTooSlow

if TYPE_CHECKING:
    from starlette.types import Message, Receive

DISCARDED = 16
"""How many times the largest body is read and thrown away, so that a client that is still sending gets the answer."""

SLOWEST = 50_000
"""Bytes for which a sender gets another second: a phone with a slow line needs minutes for its pictures."""


class BoundedBody:
    """An ASGI `receive` that raises `BodyTooLarge` after so many bytes, and `BodyTooSlow` if the body is not there in
    so many seconds, and what its bytes take at the slowest."""

    def __init__(self, receive: Receive, *, largest: int, seconds: float) -> None:
        self._receive = receive
        self._largest, self._seconds = largest, seconds
        self._begun: float | None = None
        self._received = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # what follows is the end of the connection
            return await self._receive()
        message = await self._in_time()
        if self._received > self._largest:
            while not self._complete and self._received <= self._largest * DISCARDED:
                await self._in_time()
            raise BodyTooLarge(f"The body has more than {self._largest:,} bytes; send less.")
        return message

    async def _in_time(self) -> Message:
        if self._begun is None:
            self._begun = asyncio.get_running_loop().time()
        seconds = self._seconds + min(self._received, self._largest) / SLOWEST
        try:
            async with asyncio.timeout_at(self._begun + seconds):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(f"The body was not complete within {seconds:.0f} s; send it again.") from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message
