"""Where a benchmark ran: the facts about the machine that give its figures meaning."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.contestants import CONTESTANTS, installed_version
from tests.bench.server import Databases

OURS = ("langgraph", "langgraph-checkpoint", "langchain-core", "asyncpg", "openai", "uvloop")


def facts(databases: Databases) -> dict[str, str]:
    """The facts, by name."""
    neighbours = sorted({package for contestant in CONTESTANTS.values() for package in contestant.packages})
    settings = databases.settings("server_version", "fsync", "synchronous_commit", "wal_sync_method", "shared_buffers")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory():.0f} GiB, {platform.system()}",
        "Python": f"{platform.python_version()}, event loop: {'uvloop' if installed_version('uvloop') else 'asyncio'}",
        "PostgreSQL": ", ".join(
            value if name == "server_version" else f"{name} {value}" for name, value in settings.items()
        ),
        "fsync of the disk": f"{1000 * databases.flush_seconds():.2f} ms for a durable insert of one row",
        "packages": ", ".join(
            f"{package} {found}" for package in (*OURS, *neighbours) if (found := installed_version(package))
        ),
    }


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    return name[1] if name else platform.machine()


def _memory() -> float:
    """GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
