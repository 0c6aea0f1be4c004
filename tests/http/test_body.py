"""How much of a body that is too large is read: all that a sender may already have sent, but not without end; and for
how long one is waited for: as long as it comes."""

import asyncio
from itertools import count
from typing import Any

import pytest

from moorline.http.body import DISCARDED, SLOWEST, BoundedBody
from moorline.http.errors import BodyTooLarge, BodyTooSlow

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


@pytest.mark.parametrize(("piece", "in_time"), [(SLOWEST // 10, True), (SLOWEST // 100, False)])
async def test_a_body_is_waited_for_as_long_as_it_comes(piece: int, in_time: bool) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x" * piece, "more_body": True}

    body = BoundedBody(receive, largest=SLOWEST, seconds=0.2)
    begun = asyncio.get_running_loop().time()
    try:
        for _ in range(8):
            await body()
    except BodyTooSlow:
        assert not in_time
    else:
        assert in_time
    assert asyncio.get_running_loop().time() - begun > 0.2


async def test_a_body_that_is_too_large_gets_no_more_time() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x" * (SLOWEST // 10), "more_body": True}

    with pytest.raises(BodyTooSlow):
        await BoundedBody(receive, largest=SLOWEST // 20, seconds=0.1)()
