"""A yes in words, in another process than the one that asked: whatever is killed, each booking is made once, and no
answer is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.turns.asking import calling, desk
from tests.turns.runtimes import runtime, say

EXPIRED = (
    "UPDATE conversation_states SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_until IS NOT NULL"
)
PROCESSES = multiprocessing.get_context("forkserver")
KILLS = pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.laboratory)])


def speak(dsn: str, device: str, text: str, told: str) -> None:
    """One message in a process of its own, whose reply it writes to a file."""

    async def run() -> None:
        async with runtime(dsn, calling, agent=desk([])) as moorline:
            Path(told).with_suffix(".begun").touch()
            reply = await say(moorline, text, f"{device}-{text}", device)
            Path(told).write_text(str(reply))  # noqa: ASYNC240

    asyncio.run(run())


async def spoken(dsn: str, device: str, text: str, folder: Path, *, lives: float | None = None) -> str:
    """The reply to a message, from a process that is killed then; or after it has lived for so many seconds with the
    database open, and "" if it has not answered by then."""
    told = folder / f"{device}-{text}"
    told.with_suffix(".begun").unlink(missing_ok=True)
    process = PROCESSES.Process(target=speak, args=(dsn, device, text, str(told)))
    process.start()
    try:
        async with asyncio.timeout(60):
            while process.is_alive() and not told.with_suffix(".begun").exists():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.002)
            if lives is not None:
                await asyncio.sleep(lives)
            else:
                while process.is_alive() and not (told.exists() and told.read_text()):  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
    finally:
        process.kill()
        process.join()
        process.close()
    return told.read_text() if told.exists() else ""


@KILLS
async def test_a_yes_in_another_process_books_once_whatever_is_killed(dsn: str, tmp_path: Path, kills: int) -> None:
    PROCESSES.set_forkserver_preload([__name__])
    chance = random.Random(16)  # noqa: S311 - any moments will do
    connection: asyncpg.Connection[Any] = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE bookings (device_id text, what text)")
        for number in range(kills):
            device = f"d{number}"
            assert await spoken(dsn, device, "book", tmp_path) == "Book the table at 9? (yes / no)"
            # The next process is killed too, while it hears the yes, books, or commits.
            await spoken(dsn, device, "yes", tmp_path, lives=chance.uniform(0, 0.06))
            (tmp_path / f"{device}-yes").unlink(missing_ok=True)
            await connection.execute(EXPIRED)
            assert '"booked": "table"' in await spoken(dsn, device, "yes", tmp_path)
        booked = await connection.fetch("SELECT device_id, count(*) FROM bookings GROUP BY 1")
        assert {row["device_id"]: row["count"] for row in booked} == {f"d{n}": 1 for n in range(kills)}
        turns = "SELECT count(*) FROM conversation_turns"
        assert await connection.fetchval(turns) == 2 * kills
    finally:
        await connection.close()
