"""Races of linking against turns: two devices talk, one of them in two processes, while a fourth process links them.

`python -m tests.turns.racing DSN ROLE RACES START PACE` plays one role of each race; race `n` begins at the moment
START + n * PACE.
"""

from __future__ import annotations

import asyncio
import sys
import time
from random import Random

from moorline import Moorline

from .runtimes import runtime, say

ROLES = 4
MESSAGES = 4
"""Of each role that talks; they are sent without waiting for replies."""


async def play(moorline: Moorline, role: int, race: int) -> None:
    """Plays a role of a race."""
    chance = Random(race * ROLES + role)  # noqa: S311 - repeatable, no secret
    if role == 3:
        await asyncio.sleep(chance.random() * 0.1)
        await moorline.link(f"b{race}", await moorline.link_code(f"a{race}"))
        return
    device = f"{'abb'[role]}{race}"
    sent = []
    for number in range(MESSAGES):
        await asyncio.sleep(chance.random() * 0.04)
        name = f"{'axy'[role]}{number}"
        sent.append(asyncio.create_task(say(moorline, f"{device} {name}", name, device=device)))
    for number, reply in enumerate(await asyncio.gather(*sent)):
        assert reply.message_id == f"{'axy'[role]}{number}"
        assert reply.endswith(f"{device} {reply.message_id}"), "it is somebody else's"


async def outcome(moorline: Moorline, race: int) -> bool:
    """Checks that nothing was lost, doubled or put out of order. Returns whether the link came in the middle."""
    own, joined = [
        [(text, entry.record.reply) for entry in found for text in entry.texts]
        for found in (await moorline.transcript(f"b{race}", own=True), await moorline.transcript(f"b{race}"))
    ]
    assert [each.device_id for each in await moorline.devices(f"b{race}")] == [f"a{race}", f"b{race}"]
    assert not any(text.startswith("a") for text, _ in own)
    said = [text for text, _ in own + joined]
    for stream in "axy":
        device = f"{'a' if stream == 'a' else 'b'}{race}"
        own_stream = [text for text in said if text.split()[1].startswith(stream)]
        assert own_stream == [f"{device} {stream}{number}" for number in range(MESSAGES)], said
    for turns in (own, joined):  # each was shown all that was said before it
        assert [reply for _, reply in turns] == [f"{number}: {text}" for number, (text, _) in enumerate(turns, 1)]
    return bool(own) and any(text.startswith("b") for text, _ in joined)


async def race_on(dsn: str, role: int, races: int, start: float, pace: float) -> None:
    """Plays one role of all races."""
    async with runtime(dsn) as moorline:

        async def at_its_time(race: int) -> None:
            await asyncio.sleep(max(0.0, start + race * pace - time.time()))
            await play(moorline, role, race)

        await asyncio.gather(*(at_its_time(race) for race in range(races)))


if __name__ == "__main__":
    asyncio.run(race_on(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
