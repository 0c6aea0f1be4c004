"""Runs measurements: each run in a fresh process, contestants in turn, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench.server import Databases

Results = dict[str, list[dict[str, float]]]
"""The results of each contestant's runs, by round."""


@dataclass(kw_only=True)
class Lab:
    """What a measurement needs: databases, rounds, and a way to run things."""

    databases: Databases
    rounds: int
    raw: dict[str, Any]
    """The results of all runs, by measurement."""
    measurement: str = ""

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
        command = _command(function, arguments)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    def together(self, function: Callable[..., Any], arguments: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The results of calls in fresh processes at once, one with each of the arguments: they wait for each other in
        `worker.meet`."""
        name = f"{function.__module__}:{function.__name__}"
        with ExitStack() as stack:
            processes = [stack.enter_context(_Process(_command(name, some))) for some in arguments]
            for process in processes:
                process.ready()
            for process in processes:
                process.go()
            return [process.result() for process in processes]

    def alternate(self, runs: Mapping[str, Callable[[], dict[str, float]]], *, rounds: int | None = None) -> Results:
        """Each of the runs once per round, in the order given and in the opposite order by turns, so that all run under
        the same conditions. `rounds` is the most that are needed, if that is less than usual."""
        rounds = min(self.rounds, rounds or self.rounds)
        results: Results = {name: [] for name in runs}
        self.raw.setdefault(self.measurement, {}).update(results)
        for number in range(1, rounds + 1):
            for name, run in list(runs.items())[:: 1 if number % 2 else -1]:
                began = time.monotonic()
                result = run()
                results[name].append(result)
                self.say(f"{number}/{rounds}  {name:16} {_told(result)}  ({time.monotonic() - began:.1f} s)")
        return results

    def say(self, text: str) -> None:
        """Prints a line of progress."""
        sys.stderr.write(f"{self.measurement:12} {text}\n")
        sys.stderr.flush()


def _told(result: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in result.items())


def _command(function: str, arguments: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.worker", function, json.dumps(arguments)]


class _Process:
    """A worker that waits in `worker.meet`; it is killed if the block ends before it does."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def ready(self) -> None:
        """Returns when it waits for the others, or has failed."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def go(self) -> None:
        """Lets it go on."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def result(self) -> Any:
        """Its result; raises `CalledProcessError` if it failed."""
        told, _ = self._process.communicate()
        if self._process.returncode:
            raise subprocess.CalledProcessError(self._process.returncode, self._command)
        return json.loads(told.splitlines()[-1])
