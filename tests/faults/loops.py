"""One process that calls `run_manager` in one event loop after another, as serverless adapters do.

    DATABASE_URL=… OPENAI_BASE_URL=… python -m tests.faults.loops 500

It prints a JSON line now and then, and at the end: the number of loops, its memory in KiB, its open files, and the
number of runtimes still in memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path

from moorline import Moorline, run_manager

SAMPLES = 10


def main(loops: int) -> None:
    """Runs so many loops, with a turn of one of five devices in each."""
    for number in range(1, loops + 1):
        text, device = f"hello {number}", f"d{number % 5}"
        reply = asyncio.run(run_manager(text, {"device_id": device}))
        assert reply == text, reply
        if number % (loops // SAMPLES) == 0:
            print(json.dumps(_sample(number)), flush=True)  # noqa: T201 - printing is its purpose


def _sample(number: int) -> dict[str, int]:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "loops": number,
        "memory": int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - the folder of descriptors has no paths
        "runtimes": sum(isinstance(item, Moorline) for item in gc.get_objects()),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
