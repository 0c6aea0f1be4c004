"""A real Prometheus that scrapes one address, and what it answers."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs: [{{job_name: moorline, static_configs: [{{targets: ["{target}"]}}]}}]
"""


class Prometheus:
    """Answers queries."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of the result; raises for what Prometheus does not take."""
        answer = self._client.post("/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def value(self, expression: str) -> float | None:
        """The only value of the result, if there is one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def wait(self, expression: str, value: float) -> None:
        """Until a query has the value."""
        until = time.monotonic() + 60
        while self.value(expression) != value:
            assert time.monotonic() < until, (expression, self.query(expression), self.query("up"))
            time.sleep(0.2)


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """Scrapes `host:port` every half second, as long as the block runs."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs the program prometheus")
    (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
    log = folder / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stderr=said,
            stdout=said,
        )
    try:
        with httpx2.Client(base_url=f"http://{_address(log)}", timeout=30) as client:
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait()


def _address(log: Path) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for line in log.read_text().splitlines():
            if "Listening on" in line:
                return line.rpartition("address=")[2].split()[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
