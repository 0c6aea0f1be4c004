"""What it costs a turn that its device leads to another conversation."""

from dataclasses import replace

import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns

from .claims import answer, message
from .counted import gone
from .runtimes import execute, runtime

ROUNDS = 20

LOOKED_UP = "SELECT coalesce(sum(idx_scan), 0)::integer AS number FROM pg_stat_user_tables WHERE schemaname = 'public'"


@pytest.mark.parametrize(
    ("device", "person", "more"),
    [("d1", None, 0), ("linked", None, 1), ("with-a-past", None, 1), ("returned", None, 0), ("d1", "ann", 1)],
)
async def test_a_hot_turn_looks_up_little_more(dsn: str, device: str, person: str | None, more: int) -> None:
    """By the server's counts, beside a device that leads to its own conversation."""
    async with runtime(dsn) as moorline:
        for each in ("d0", "d1", "with-a-past", "returned"):
            await moorline.run("hello", {"device_id": each, "person_id": person if each == "d1" else None})
        for each in ("linked", "with-a-past", "returned"):
            await moorline.link(each, await moorline.link_code("d1"))
        for each in ("d0", "returned"):  # as many turns in both conversations
            await moorline.run("hello", {"device_id": each})
        await moorline.unlink("returned")
        await moorline.run("hello", {"device_id": "returned"})
    counts = []
    for each, whose in (("d0", None), (device, person)):
        await gone(dsn)
        before = await number(dsn)
        async with DeviceCheckpointer.from_conn_string(dsn, pool_size=1) as saver:
            turns = Turns(saver.database, default_ttl=60, keep_turns=1000)
            for count in range(ROUNDS):
                await answer(turns, replace(message(f"m{count}", device=each), person_id=whose))
        await gone(dsn)
        counts.append(await number(dsn) - before)
    assert counts[1] - counts[0] == more * ROUNDS


async def number(dsn: str) -> int:
    [row] = await execute(dsn, LOOKED_UP)
    found: int = row["number"]
    return found
