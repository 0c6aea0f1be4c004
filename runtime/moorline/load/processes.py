"""Several processes under load: each message goes to the next one, so that a conversation runs through all of them.

A process is given messages and gives back replies, as lines of JSON on its standard input and output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from moorline.errors import ConfigurationError, MoorlineError
from moorline.load.targets import Answer, InProcess
from moorline.runtime import Moorline

LONGEST_LINE = 2**22
"""Bytes of a line; the longest reply fits into it."""

ENDING = 30.0
"""Seconds that a process has to end by itself."""


class Failed(MoorlineError):
    """What another process raised."""

    def __init__(self, text: str, *, retryable: bool) -> None:
        super().__init__(text)
        self.retryable = retryable


@asynccontextmanager
async def in_processes(moorline: Moorline, number: int, *, app: str | None, latency: float) -> AsyncIterator[Processes]:
    """`number` processes, each with a `Moorline` of its own on the database of this open one, which reads the
    transcripts. They are those of `app`, or echoes that take `latency` seconds."""
    job = {
        "app": app,
        "latency": latency,
        "settings": moorline.settings.model_dump(mode="json", include={"database_url", "schema_name", "data"}),
    }
    workers = await asyncio.gather(*(_Worker.start(job) for _ in range(number)))
    try:
        yield Processes(moorline=moorline, workers=workers)
    finally:
        await asyncio.gather(*(worker.end() for worker in workers))


class Processes(InProcess):
    """Messages go to the other processes; everything else is done in this one."""

    def __init__(self, *, moorline: Moorline, workers: Sequence[_Worker]) -> None:
        super().__init__(moorline=moorline)
        self._workers = workers
        self._turns = cycle(workers)

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        alive = (worker for _, worker in zip(self._workers, self._turns, strict=False) if worker.alive)
        worker = next(alive, None)
        if worker is None:
            raise Failed("All processes of the load test have ended.", retryable=False)
        return await worker.ask({"device_id": device_id, "text": text, "message_id": message_id})


@dataclass
class _Worker:
    """One process, and the messages that it is answering."""

    process: asyncio.subprocess.Process
    alive: bool = True
    _asked: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _numbers: int = 0
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, job: dict[str, Any]) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "moorline.load.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the parent, which ends the others
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(job).encode() + b"\n")  # no argument: others see those, and it has passwords
        if not await process.stdout.readline():
            raise ConfigurationError("A process of the load test could not start; its error is above.")
        worker = cls(process)
        worker._reading = asyncio.create_task(worker._read(process.stdout))
        return worker

    async def ask(self, message: dict[str, str]) -> Answer:
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        self._numbers += 1
        number = self._numbers
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self.process.stdin.write(json.dumps({"number": number, **message}).encode() + b"\n")
            got = await answer
        finally:
            self._asked.pop(number, None)
        if "error" in got:
            raise Failed(got["error"], retryable=got["retryable"])
        return Answer(text=got["text"], turn_no=got["turn_no"])

    async def end(self) -> None:
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), ENDING)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            got = json.loads(line)
            self._settle(got["number"], got)
        self.alive = False
        for number in self._asked:
            self._settle(number, {"error": "The process ended.", "retryable": True})

    def _settle(self, number: int, got: dict[str, Any]) -> None:
        answer = self._asked.get(number)
        if answer is not None and not answer.done():  # its asker may just have been cancelled
            answer.set_result(got)


def as_line(number: int, outcome: Answer | MoorlineError) -> bytes:
    """What a worker process prints for its parent."""
    if isinstance(outcome, MoorlineError):
        told = {"error": f"{type(outcome).__name__}: {outcome}", "retryable": outcome.retryable}
    else:
        told = asdict(outcome)
    return json.dumps({"number": number, **told}).encode() + b"\n"
