"""The bytes of a streamed answer, watched while the client reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from moorline_agents.model_errors import ModelError

LONGEST_LINE = 8 * 2**20
"""Bytes that one event of a stream may have."""

LONGEST_STREAM = 64 * 2**20
"""Bytes that a whole stream may have."""

_END = b"[DONE]"
_KEPT = 64


class WatchedStream(httpx2.AsyncByteStream):
    """Passes a response's bytes on, and knows whether they have come to the end mark.

    Raises `ModelError` when an event, or the stream, grows beyond all reason, before it fills the memory.
    """

    def __init__(self, response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - an asynchronous client read it
        self._stream = response.stream
        self._packed = "content-encoding" in response.headers
        self._tail = b""
        self._line = self._length = 0

    @property
    def ended(self) -> bool:
        """Whether the end mark has come; also True if compression hides that."""
        return self._packed or self._tail.rstrip().endswith(_END)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._tail = (self._tail + piece)[-_KEPT:] if len(piece) < _KEPT else piece[-_KEPT:]
            self._length += len(piece)
            at = piece.rfind(b"\n")
            self._line = self._line + len(piece) if at < 0 else len(piece) - at - 1
            if self._line > LONGEST_LINE or self._length > LONGEST_STREAM:
                raise ModelError.too_long()
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
