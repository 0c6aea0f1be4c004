"""Runs measurements: each run in a fresh process, contestants in turn, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.server import Databases

Results = dict[str, list[dict[str, float]]]
"""The results of each contestant's runs, by round."""


@dataclass(kw_only=True)
class Lab:
    """What a measurement needs: databases, rounds, and a way to run things."""

    databases: Databases
    rounds: int
    quick: bool
    raw: dict[str, Any]
    """The results of all runs, by measurement."""
    measurement: str = ""

    def size(self, full: int, quick: int) -> int:
        """A number of turns or devices, smaller in a quick run."""
        return quick if self.quick else full

    def database(self) -> AbstractContextManager[str]:
        """The DSN of a fresh database."""
        return self.databases.fresh()

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """The result of an asynchronous function in a fresh process."""
        return self.call_in(f"{function.__module__}:{function.__name__}", **arguments)

    def call_in(
        self, function: str, *, folder: Path | None = None, environment: dict[str, str] | None = None, **arguments: Any
    ) -> Any:
        """The same for a function given by name, in its own folder and environment."""
        command = [sys.executable, "-m", "tests.bench.worker", function, json.dumps(arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    def alternate(self, runs: Mapping[str, Callable[[], dict[str, float]]]) -> Results:
        """Each of the runs once per round, in the order given, so that all run under the same conditions."""
        results: Results = {name: [] for name in runs}
        self.raw[self.measurement] = results
        for number in range(1, self.rounds + 1):
            for name, run in runs.items():
                began = time.monotonic()
                result = run()
                results[name].append(result)
                self.say(f"{number}/{self.rounds}  {name:16} {_told(result)}  ({time.monotonic() - began:.1f} s)")
        return results

    def say(self, text: str) -> None:
        """Prints a line of progress."""
        sys.stderr.write(f"{self.measurement:12} {text}\n")
        sys.stderr.flush()


def _told(result: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in result.items())
