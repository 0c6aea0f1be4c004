"""What OpenAPI says is what the server does: schemathesis finds nothing, with all of its checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .serving import ROOT, Served, serving

PROGRAM = str(Path(sys.executable).with_name("schemathesis"))

OFTEN = {f"MOORLINE_RATE_{what}": "100000/second" for what in ("DEVICE", "ADDRESS", "NEW_DEVICES")}


ACCEPTED = """
# What a file is, only its bytes say: no schema does.
[[operations]]
include-path = "/v1/messages"

[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "424", "5xx"]
"""


def explored(
    server: Served, folder: Path, *, phases: str, examples: int, **variables: str
) -> subprocess.CompletedProcess[str]:
    (folder / "schemathesis.toml").write_text(ACCEPTED)
    return subprocess.run(
        [
            *(PROGRAM, "run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(examples)),
            *("--phases", phases),
            *("--seed", "1", "--generation-database", "none", "--no-color", "--warnings", "off"),
        ],
        env=os.environ | {"SERVED": server.url, "PYTHONPATH": str(ROOT)} | variables,
        cwd=folder,  # where it leaves its cache
        capture_output=True,
        text=True,
        check=False,
    )


# What the phase "coverage" tries, which takes longest, has little to do with who is asking.
@pytest.mark.parametrize(
    ("mode", "phases"), [("none", "examples,coverage,fuzzing,stateful"), ("signed", "examples,fuzzing,stateful")]
)
def test_schemathesis_finds_no_failure(dsn: str, mode: str, phases: str, tmp_path: Path) -> None:
    hooks = {"SCHEMATHESIS_HOOKS": "tests.http.schemathesis_hooks"} if mode == "signed" else {}
    with serving(dsn, MOORLINE_DEVICE_AUTH=mode, **OFTEN) as server:
        examples = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))
        found = explored(server, tmp_path, phases=phases, examples=examples, **hooks)
        assert found.returncode == 0, found.stdout + found.stderr
        assert "Traceback" not in server.said
