"""How much of a body that is too large is read: all that a sender may already have sent, but not without end."""

from itertools import count
from typing import Any

import pytest

from moorline.http.body import DISCARDED, BoundedBody
from moorline.http.errors import BodyTooLarge

LARGEST = 1_000


async def read_of(pieces: int | None) -> int:
    """How many pieces of 100 bytes are read, of so many or of a body without end."""
    numbers = count(1)
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read = next(numbers)
        return {"type": "http.request", "body": b"x" * 100, "more_body": read != pieces}

    async def read_on(body: BoundedBody) -> None:
        for _ in range(20):
            await body()

    with pytest.raises(BodyTooLarge):
        await read_on(BoundedBody(receive, largest=LARGEST, seconds=10))
    return read


async def test_the_rest_is_read_so_that_its_sender_learns_why_it_is_refused() -> None:
    assert await read_of(11) == 11
    assert await read_of(10 * DISCARDED) == 10 * DISCARDED


async def test_a_body_without_end_is_given_up() -> None:
    assert await read_of(None) == 10 * DISCARDED + 1
