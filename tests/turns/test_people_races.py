"""Linking while both devices talk: no message is lost or doubled, and the order is kept."""

import asyncio
import sys
import time

import pytest

from .racing import ROLES, outcome, race_on
from .runtimes import runtime


async def checked(dsn: str, races: int) -> int:
    """In how many of the races the link came in the middle."""
    async with runtime(dsn) as moorline:
        return sum([await outcome(moorline, race) for race in range(races)])


async def test_a_link_races_with_turns_on_both_devices(dsn: str) -> None:
    """In four workers, each with connections of its own."""
    races, start = 8, time.time() + 0.5
    await asyncio.gather(*(race_on(dsn, role, races, start, 0.05) for role in range(ROLES)))
    assert await checked(dsn, races) > 0


@pytest.mark.laboratory
async def test_a_thousand_links_race_with_turns_in_four_processes(dsn: str) -> None:
    races, pace = 1000, 0.15
    start = time.time() + 10
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.turns.racing", dsn, str(role), str(races), str(start), str(pace)),
            stderr=asyncio.subprocess.PIPE,
        )
        for role in range(ROLES)
    ]
    said = [complaint.decode() for _, complaint in await asyncio.gather(*(each.communicate() for each in running))]
    assert [each.returncode for each in running] == [0] * ROLES, "\n".join(said)
    in_the_middle = await checked(dsn, races)
    print(f"{races} races, {in_the_middle} with the link in the middle, {time.time() - start:.0f} s")  # noqa: T201
    assert in_the_middle > races / 10
