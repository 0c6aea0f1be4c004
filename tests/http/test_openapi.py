"""What OpenAPI says is what the server does: schemathesis finds nothing, with all of its checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .serving import ROOT, Served, serving

PROGRAM = str(Path(sys.executable).with_name("schemathesis"))

OFTEN = {f"MOORLINE_RATE_{what}": "100000/second" for what in ("DEVICE", "ADDRESS", "NEW_DEVICES")}


def explored(server: Served, folder: Path, *, examples: int, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(PROGRAM, "run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(examples)),
            *("--seed", "1", "--generation-database", "none", "--no-color", "--warnings", "off"),
        ],
        env=os.environ | {"SERVED": server.url, "PYTHONPATH": str(ROOT)} | variables,
        cwd=folder,  # where it leaves its cache
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mode", ["none", "signed"])
def test_schemathesis_finds_no_failure(dsn: str, mode: str, tmp_path: Path) -> None:
    hooks = {"SCHEMATHESIS_HOOKS": "tests.http.schemathesis_hooks"} if mode == "signed" else {}
    with serving(dsn, MOORLINE_DEVICE_AUTH=mode, **OFTEN) as server:
        found = explored(server, tmp_path, examples=int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10")), **hooks)
        assert found.returncode == 0, found.stdout + found.stderr
        assert "Traceback" not in server.said
