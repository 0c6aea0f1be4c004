"""The manager graph does what the graph of before did: the same replies, journals, transcripts, sessions, effects, and
the same shown to every model, in random conversations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import islice

import asyncpg
import pytest

from .comparing import differences
from .conversations import conversation
from .playing import FORMS, Stage, play, stage

AT_ONCE = 24
"""Conversations that are played at one time."""

SHOWN = 3
"""Differences that are told of a conversation."""

LENGTHS = ((14, 0), (25, 0), (40, 0))
AWAY = (16, 150)


def plan(seed: int) -> tuple[int, int]:
    """How long a conversation of the laboratory is, and for how many turns an agent is away."""
    return AWAY if seed % 100 == 7 else LENGTHS[seed % len(LENGTHS)]


async def compare(stages: list[Stage], seed: int, length: int, away: int) -> str | None:
    """What is not the same in a conversation, if anything."""
    steps = conversation(seed, length=length, away=away)
    before, flat = await asyncio.gather(*(play(each, seed, steps) for each in stages))
    told = list(islice(differences(steps, before, flat), SHOWN))
    return "\n".join([f"conversation {seed}, length {length}, away {away}:", *told]) if told else None


async def compare_all(dsn: str, plans: Iterator[tuple[int, int, int]]) -> list[str]:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE bookings (device_id text, what text)")
    await connection.close()
    wrong: list[str] = []
    async with AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(stage(dsn, form, keep_turns=3)) for form in FORMS]

        async def work() -> None:
            for seed, length, away in plans:
                if told := await compare(stages, seed, length, away):
                    wrong.append(told)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return wrong


async def test_short_conversations_go_as_before(dsn: str) -> None:
    plans = [(0, 10, 40), *((seed, 6 + seed % 10, 0) for seed in range(1, int(os.environ.get('QN', '60'))))]
    wrong = await compare_all(dsn, iter(plans))
    assert not wrong, f"{len(wrong)} of {len(plans)} differ\n" + "\n".join(wrong)


@pytest.mark.laboratory
async def test_long_conversations_go_as_before(dsn: str) -> None:
    """As many as `MOORLINE_CONVERSATIONS` says, from the seed `MOORLINE_SEED` on."""
    first, count = int(os.environ.get("MOORLINE_SEED", "1000")), int(os.environ.get("MOORLINE_CONVERSATIONS", "2000"))
    wrong = await compare_all(dsn, iter([(seed, *plan(seed)) for seed in range(first, first + count)]))
    assert not wrong, f"{len(wrong)} of {count} differ\n" + "\n".join(wrong[:10])
