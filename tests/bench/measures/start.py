"""The time of a fresh process to its first reply, by `run_manager` with the rehearsal model, on a running server with
the schema in place; against a process that only imports what every agent runtime has to. Both end when they print."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from tests.bench.figures import Figure, ratios
from tests.bench.lab import Lab

IMPORT = "import langgraph.graph, openai, asyncpg; print('imported')"
REPLY = """
import asyncio, sys
from moorline import run_manager
print(asyncio.run(run_manager("hello", {"device_id": sys.argv[1], "message_id": "m1"})))
"""
TRIES = 3
"""Processes in a run; their median counts, because a start is short."""


def measure(lab: Lab) -> list[Figure]:
    """Seconds."""
    with lab.database() as dsn:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MOORLINE_"))
        }
        environment["DATABASE_URL"] = dsn
        count = 0

        def seconds(code: str) -> float:
            nonlocal count
            count += 1
            began = time.perf_counter()
            command = [sys.executable, "-c", code, f"device-{count}"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True)
            if not done.stdout.strip():
                raise ValueError(f"a process printed nothing but {done.stderr!r}")
            return time.perf_counter() - began

        def run(code: str) -> dict[str, float]:
            return {"seconds": median(seconds(code) for _ in range(TRIES))}

        for code in (REPLY, IMPORT):  # so that all is compiled, and in the system's cache
            seconds(code)
        results = lab.alternate({"moorline": lambda: run(REPLY), "imports": lambda: run(IMPORT)})
    ours, theirs = ([run["seconds"] for run in results[name]] for name in ("moorline", "imports"))
    return [
        Figure(
            path="run",
            what="a fresh process to its first reply against `import langgraph.graph, openai, asyncpg` alone",
            values=ratios(ours, theirs),
            at_most=0.9,
            seen=f"{median(ours):.2f} s against {median(theirs):.2f} s",
        )
    ]
