"""The garbage collector belongs to the whole process: in a program that embeds Moorline it stays as it is, in our own
processes it skips what is alive after the first turn, and comes less often."""

import subprocess
import sys
from pathlib import Path

import pytest

from moorline.execution import COLLECT_AFTER

EMBEDDED = """
import asyncio, gc
from moorline import run_manager

async def two_turns():
    seen = []
    for _ in range(2):
        await run_manager("Hello", {"device_id": "d1"})
        seen += gc.get_freeze_count(), gc.get_threshold()[0]
    return seen

print(gc.get_threshold()[0], *asyncio.run(two_turns()))
"""

CHAT = """
import atexit, gc, sys
from moorline.cli import main

atexit.register(lambda: print(gc.get_freeze_count(), gc.get_threshold()[0]))
sys.argv = ["moorline", "chat"]
main()
"""


def seen(program: str, dsn: str, folder: Path, **settings: str) -> list[int]:
    """The numbers that a fresh process prints last: frozen objects, and new objects after which it collects."""
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
    own, *turns = seen(EMBEDDED, dsn, tmp_path)
    assert turns == [0, own, 0, own]


def test_by_a_setting_it_is_tuned_once(dsn: str, tmp_path: Path) -> None:
    _, first, after, second, still = seen(EMBEDDED, dsn, tmp_path, MOORLINE_TUNE_GC="true")
    assert first > 100_000
    assert second <= first
    assert after == still == COLLECT_AFTER


def test_a_process_that_collects_even_less_often_keeps_to_that(dsn: str, tmp_path: Path) -> None:
    patient = f"import gc; gc.set_threshold({2 * COLLECT_AFTER}){EMBEDDED}"
    assert seen(patient, dsn, tmp_path, MOORLINE_TUNE_GC="true")[2] == 2 * COLLECT_AFTER


@pytest.mark.parametrize(("settings", "tuned"), [({}, True), ({"MOORLINE_TUNE_GC": "false"}, False)])
def test_the_command_line_tunes_it_unless_told_otherwise(
    settings: dict[str, str], tuned: bool, dsn: str, tmp_path: Path
) -> None:
    frozen, after = seen(CHAT, dsn, tmp_path, **settings)
    assert (frozen > 100_000) is tuned
    assert (after == COLLECT_AFTER) is tuned
