"""The garbage collector belongs to the whole process: in a program that embeds Moorline it stays as it is, in our own
processes it skips what is alive after the first turn."""

import subprocess
import sys
from pathlib import Path

import pytest

EMBEDDED = """
import asyncio, gc
from moorline import run_manager

async def two_turns():
    counts = []
    for _ in range(2):
        await run_manager("Hello", {"device_id": "d1"})
        counts.append(gc.get_freeze_count())
    return counts

print(*asyncio.run(two_turns()))
"""

CHAT = """
import atexit, gc, sys
from moorline.cli import main

atexit.register(lambda: print(gc.get_freeze_count()))
sys.argv = ["moorline", "chat"]
main()
"""


def frozen(program: str, dsn: str, folder: Path, **settings: str) -> list[int]:
    """The counts of frozen objects that a fresh process prints last."""
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={"DATABASE_URL": dsn, "MOORLINE_DATA": str(folder), **settings},
        input="Hello\n",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [int(count) for count in shown.stdout.splitlines()[-1].split()]


def test_a_program_that_embeds_moorline_keeps_its_collector_as_it_is(dsn: str, tmp_path: Path) -> None:
    assert frozen(EMBEDDED, dsn, tmp_path) == [0, 0]


def test_by_a_setting_what_is_alive_after_the_first_turn_is_spared_once(dsn: str, tmp_path: Path) -> None:
    first, second = frozen(EMBEDDED, dsn, tmp_path, MOORLINE_GC_FREEZE="true")
    assert first > 100_000
    assert second <= first


@pytest.mark.parametrize(("settings", "spared"), [({}, True), ({"MOORLINE_GC_FREEZE": "false"}, False)])
def test_the_command_line_is_spared_it_unless_told_otherwise(
    settings: dict[str, str], spared: bool, dsn: str, tmp_path: Path
) -> None:
    [count] = frozen(CHAT, dsn, tmp_path, **settings)
    assert (count > 100_000) is spared
