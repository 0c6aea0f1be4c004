"""Folders for the data of servers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - where there is room, as elsewhere
ROOM = 4 * 2**30
"""Free bytes of memory that a run wants to see before it puts its data there."""


def new_space() -> Path:
    """An empty folder, in memory if there is room: a database is made ten times as fast there as on some disks.

    It is not pytest's: its name is short, because the path of a Unix socket must fit into some 100 bytes, and under
    root the account of a server may pass through it.
    """
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM
    folder = Path(tempfile.mkdtemp(prefix="moorline-", dir=MEMORY if roomy else None))
    folder.chmod(0o711)
    return folder


@contextmanager
def a_space() -> Iterator[Path]:
    """A new space, which is removed afterwards."""
    folder = new_space()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
