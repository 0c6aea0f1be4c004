"""The runtime of the environment, in processes as a backend has them."""

import os
import subprocess
import sys


def test_the_default_runtime_ends_with_its_loop_without_a_word(dsn: str) -> None:
    """Whatever the order in which the loop closes things: the runtime, and the pool that the runtime closes as well."""
    code = """
import asyncio
from moorline import run_manager

for number in range(12):
    asyncio.run(run_manager("hello", {"device_id": "d1", "message_id": str(number)}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, "DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "asynchronous generator" not in done.stderr
