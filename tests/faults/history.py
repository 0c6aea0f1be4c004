"""The operation log: what each worker asked for and what came of it, a JSON line an event.

A line is written by one system call before the worker goes on, so a killed worker's log ends with the last thing it
did. `at` is the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal[
    "ready",  # the worker takes orders
    "invoke",  # a message is sent, or sent again
    "ok",  # it was answered
    "fail",  # it was not, and its commit had not begun
    "info",  # it was not, and whether it will be is not known
    "dead",  # it was set aside
    "erase",  # a device is being erased
    "erased",  # it is
    "begun",  # a turn was claimed
    "commit",  # a turn is being committed
    "committed",  # it is
    "stale",  # its commit, or a transaction under its fence, was refused
    "outside",  # an effect happened outside of the database
    "failpoint",  # the worker is about to be killed or stopped here
    "crashed",  # the worker itself is broken
    "finished",  # the worker did all it was ordered to
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a worker's log."""

    worker: str
    at: float
    wall: float
    event: Kind
    device: str = ""
    message: str = ""
    """The message's ID; of a turn, that of its first message."""
    messages: tuple[str, ...] = ()
    text: str = ""
    """Of an invocation."""
    turn_no: int | None = None
    fence: int | None = None
    reply: str | None = None
    replayed: bool = False
    recovered: tuple[tuple[int, str], ...] = ()
    """Turn number and reply of each crashed turn that was finished on the way."""
    moment: str | None = None
    """The database's clock at a claim, in ISO 8601."""
    key: str | None = None
    """Of an effect outside: what the other side tells calls apart by."""
    idempotent: bool = False
    error: str | None = None


class Log:
    """A worker's."""

    def __init__(self, path: Path, worker: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._worker = worker

    def write(self, event: Kind, **fields: Any) -> None:
        """Appends an event of now."""
        line = {"worker": self._worker, "at": time.monotonic(), "wall": time.time(), "event": event, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def load(paths: Iterable[Path]) -> tuple[Event, ...]:
    """All events of these logs in the order in which they happened."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(sorted(map(_event, lines), key=lambda event: event.at))


def _event(line: str) -> Event:
    fields = json.loads(line)
    if fields["event"] not in get_args(Kind):
        raise ValueError(f"a log has an event of an unknown kind: {fields['event']}")
    fields["messages"] = tuple(fields.get("messages", ()))
    fields["recovered"] = tuple((number, reply) for number, reply in fields.get("recovered", ()))
    return Event(**fields)
