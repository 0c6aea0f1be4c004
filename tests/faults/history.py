"""The operation log: what each worker asked for and the outcome, one JSON line for each event.

A line is written by one system call before the worker goes on, so a killed worker's log ends with the last thing it
did. `at` is the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal[
    "ready",  # the worker takes orders
    "invoke",  # a message is sent, or sent again
    "ok",  # it was answered
    "fail",  # it was not answered, and its commit had not begun
    "info",  # it was not answered, and whether it will be is unknown
    "dead",  # it was set aside
    "erase",  # a device is being erased
    "erased",  # it is
    "begun",  # a turn was claimed
    "commit",  # a turn is being committed
    "committed",  # it is
    "stale",  # its commit, or a transaction under its claim, was refused
    "outside",  # an effect happened outside the database
    "waited",  # the longest that anything waited while what follows locks was told
    "failpoint",  # the worker is about to be killed or stopped here
    "crashed",  # the worker itself is broken
    "finished",  # the worker did everything it was ordered to do
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
    """The message's ID; for a turn, that of its first message."""
    messages: tuple[str, ...] = ()
    text: str = ""
    """The ID of an invocation."""
    turn_no: int | None = None
    fence: int | None = None
    reply: str | None = None
    replayed: bool = False
    recovered: tuple[tuple[int, str], ...] = ()
    """Turn number and reply of each crashed turn that was finished first."""
    moment: str | None = None
    """The database's time at a claim, in ISO 8601."""
    key: str | None = None
    """The idempotency key of an outside effect."""
    idempotent: bool = False
    error: str | None = None
    seconds: float = 0.0


class Log:
    """A worker's."""

    def __init__(self, path: Path, worker: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._worker = worker

    def write(self, event: Kind, **fields: Any) -> None:
        """Appends an event that happens now."""
        line = {"worker": self._worker, "at": time.monotonic(), "wall": time.time(), "event": event, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Logs:
    """All logs in a folder, read as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._events: list[Event] = []

    def events(self) -> tuple[Event, ...]:
        """All events so far, in the order in which they happened."""
        for path in self._folder.glob("*.jsonl"):
            begun = self._read.get(path, 0)
            with path.open("rb") as log:
                log.seek(begun)
                new = log.read()
            whole = new.rfind(b"\n") + 1
            self._read[path] = begun + whole
            self._events.extend(map(_event, new[:whole].splitlines()))
        self._events.sort(key=lambda event: event.at)
        return tuple(self._events)


def _event(line: bytes) -> Event:
    fields = json.loads(line)
    if fields["event"] not in get_args(Kind):
        raise ValueError(f"a log has an event of an unknown kind: {fields['event']}")
    fields["messages"] = tuple(fields.get("messages", ()))
    fields["recovered"] = tuple((number, reply) for number, reply in fields.get("recovered", ()))
    return Event(**fields)
