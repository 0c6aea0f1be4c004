"""The reference server of the MCP project, which npm has."""

from __future__ import annotations

import fcntl
import shutil
import subprocess

import pytest

PACKAGE, VERSION = "@modelcontextprotocol/server-everything", "2026.8.31"


def everything(config: pytest.Config) -> list[str]:
    """The command that starts it. It is installed once, in pytest's cache; skips the test if it cannot be."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip(f"{PACKAGE} needs npm, which is not installed")
    assert config.cache is not None
    folder = config.cache.mkdir(f"server-everything-{VERSION}")
    program = folder / "node_modules" / PACKAGE / "dist" / "index.js"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            install = [npm, "install", "--prefix", str(folder), "--silent", "--no-audit", "--no-fund"]
            ran = subprocess.run([*install, f"{PACKAGE}@{VERSION}"], check=False, capture_output=True, text=True)
            if ran.returncode or not program.exists():
                pytest.skip(f"npm cannot install {PACKAGE}: {ran.stderr[-300:]}")
    return [node, str(program), "stdio"]
