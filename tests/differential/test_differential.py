"""In random conversations, the manager graph does the same as the earlier graph: the same replies, journals,
transcripts, sessions and effects, and every model is shown the same."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import islice

import asyncpg
import pytest

from .comparing import HAPPENS, differences, happened
from .conversations import conversation
from .playing import FORMS, Stage, play, stage

AT_ONCE = 24
"""Conversations that are played at the same time."""

SHOWN = 3
"""How many differences are reported of a conversation."""

COVERING = (40, 52, 55, 95)
"""Short conversations in which, with the first five, everything happens that shall."""

CHUNKS = 4
"""Parts of the laboratory's run, for several workers of pytest."""

LENGTHS = (8, 14, 22)
"""Steps of its conversations."""


def plan(seed: int) -> tuple[int, int, int]:
    """A conversation of the laboratory: its seed, its length, and for how many turns an agent is away meanwhile."""
    return seed, LENGTHS[seed % len(LENGTHS)], 200 if seed % 100 == 7 else 0


async def compare(stages: list[Stage], seed: int, length: int, away: int, tally: Counter[str]) -> str | None:
    """The differences in a conversation; None if there are none."""
    steps = conversation(seed, length=length, away=away)
    before, flat = await asyncio.gather(*(play(each, seed, steps) for each in stages))
    tally.update(happened(steps, before))
    told = list(islice(differences(steps, before, flat), SHOWN))
    return "\n".join([f"conversation {seed}, length {length}, away {away}:", *told]) if told else None


async def compare_all(dsn: str, plans: Iterable[tuple[int, int, int]]) -> Counter[str]:
    """Fails where any of these conversations differ; gives what happened in them."""
    left, tally = iter(plans), Counter[str]()
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "CREATE TABLE bookings (device_id text, what text, number integer GENERATED ALWAYS AS IDENTITY)"
    )
    await connection.close()
    wrong: list[str] = []
    async with AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(stage(dsn, form, keep_turns=3)) for form in FORMS]

        async def work() -> None:
            for seed, length, away in left:
                if told := await compare(stages, seed, length, away, tally):
                    wrong.append(told)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong[:SHOWN])
    return tally


async def test_short_conversations_go_as_before(dsn: str) -> None:
    tally = await compare_all(dsn, [(0, 10, 40), *((seed, 12, 0) for seed in (*range(1, 6), *COVERING))])
    assert tally.keys() >= HAPPENS


@pytest.mark.laboratory
@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_long_conversations_go_as_before(dsn: str, chunk: int) -> None:
    """As many as `MOORLINE_CONVERSATIONS` says, from the seed `MOORLINE_SEED` on."""
    first, count = int(os.environ.get("MOORLINE_SEED", "1000")), int(os.environ.get("MOORLINE_CONVERSATIONS", "2000"))
    await compare_all(dsn, map(plan, range(first + chunk, first + count, CHUNKS)))
