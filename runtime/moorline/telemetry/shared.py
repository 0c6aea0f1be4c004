"""Counting in several processes: they keep their numbers in files of one folder, and whichever is asked shows all."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable in which prometheus_client finds the folder when it is imported."""

_LIVE = re.compile(r"gauge_live\w+_(\d+)\.db")


@contextmanager
def shared_folder(processes: int) -> Iterator[None]:
    """While the block runs, processes that it starts count together, in a folder of its own that is removed in the end.
    One process alone needs none."""
    if processes == 1 or FOLDER in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="moorline-metrics-") as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


def shared_registry() -> CollectorRegistry | None:
    """The numbers of all processes, ended ones too; but what is in use right now of live ones only. None if this
    process counts alone."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return None
    for file in Path(folder).glob("gauge_live*.db"):
        found = _LIVE.fullmatch(file.name)
        if found is not None and not _alive(int(found[1])):
            mark_process_dead(int(found[1]), folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)
    return registry


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # where a signal would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
