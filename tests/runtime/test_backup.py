"""A backup of the embedded database is a data folder of its own, in which every conversation goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_cli import Call, in_a_process, moorline, no_settings, refusal
from .test_embedded import as_root, dsn_of, using

__all__ = ["moorline", "no_settings"]

TALK = """
import asyncio, sys
from pathlib import Path
from moorline import Moorline, Settings
from moorline.embedded.backup import back_up

async def main(data, target):
    async with Moorline(Settings(data=data)) as m:
        held = asyncio.create_task(talk(m))
        await back_up(data, target)
        held.cancel()

async def talk(m):
    number = 0
    while True:
        number += 1
        await m.run(f"message {number}", {"device_id": "busy", "message_id": number})

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


def turns(data: Path, device: str) -> list[list[str]]:
    done = in_a_process("turns", device, MOORLINE_DATA=str(data))
    assert done.status == 0, done
    return [line.split("\t") for line in done.out.splitlines()]


def test_a_backup_is_made_in_use_and_restored_by_using_it(space: Path) -> None:
    data, copy = space / "data", space / "backups" / "monday"
    with using(data) as user:
        assert dsn_of(user)
        in_a_process("chat", said="I want to book a haircut\nthe first one\nyes\n", MOORLINE_DATA=str(data))
        done = in_a_process("backup", str(copy), MOORLINE_DATA=str(data))
        assert done.status == 0, done
        assert done.out == f"Backed up. To use the backup: MOORLINE_DATA={copy}\n"
        in_a_process("chat", said="after the backup\n", MOORLINE_DATA=str(data))

    goes_on = in_a_process("chat", said="when is my appointment?\n", MOORLINE_DATA=str(copy))

    assert goes_on.out.startswith("[scheduling]"), goes_on
    texts = [turn[2] for turn in turns(copy, (data / "device").read_text().strip())]
    assert texts == ["I want to book a haircut", "the first one", "yes", "when is my appointment?"]


@pytest.mark.laboratory
def test_what_is_being_written_meanwhile_is_in_it_up_to_a_committed_turn(space: Path) -> None:
    data, copy = space / "data", space / "copy"
    subprocess.run([sys.executable, "-c", TALK, str(data), str(copy)], check=True, env=os.environ)
    numbers = [int(turn[0]) for turn in turns(copy, "busy")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) <= len(turns(data, "busy"))


def test_a_folder_with_something_in_it_is_not_touched(moorline: Call, space: Path) -> None:
    (space / "file").write_text("mine")
    assert "is not empty" in refusal(moorline("backup", str(space), MOORLINE_DATA=str(space / "data")))
    assert (space / "file").read_text() == "mine"


def test_a_server_of_ones_own_has_its_own_programs(moorline: Call, space: Path) -> None:
    refused = refusal(moorline("backup", str(space / "copy"), DATABASE_URL="postgresql://h/d"))
    assert "docs/backup.md" in refused
    assert not (space / "copy").exists()


@as_root
def test_a_private_folder_holds_a_backup_as_well(space: Path) -> None:
    private = space / "private"
    private.mkdir(mode=0o700)
    with using(space / "data") as user:
        dsn_of(user)
        done = in_a_process("backup", str(private / "copy"), MOORLINE_DATA=str(space / "data"))
    assert done.status == 0, done
    with using(private / "copy") as user:
        assert dsn_of(user)
    assert (private / "copy" / "postgres").stat().st_mode & 0o777 == 0o700
