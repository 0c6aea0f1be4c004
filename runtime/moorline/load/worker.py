"""A process of a load test: its job and then messages come in on standard input, and replies go out on standard output,
until the input ends."""

from __future__ import annotations

import asyncio
import json
import sys

from moorline.app import find_app
from moorline.errors import MoorlineError
from moorline.load.echo import echo_moorline
from moorline.load.processes import LONGEST_LINE, as_line
from moorline.load.targets import Answer, InProcess, warm_up
from moorline.logs import show_logs
from moorline.settings import Settings


async def _work() -> None:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    job = json.loads(await lines.readline())
    if job["app"]:
        moorline = find_app(job["app"])
    else:
        moorline = echo_moorline(Settings(**job["settings"]), latency=job["latency"])
    show_logs(moorline.settings.log_level, quiet=True)
    async with moorline:
        target = InProcess(moorline=moorline)
        await warm_up(target)
        sys.stdout.buffer.write(b"{}\n")  # ready
        sys.stdout.buffer.flush()
        answering: set[asyncio.Task[None]] = set()
        async for line in lines:
            task = asyncio.create_task(_answer(target, **json.loads(line)))
            answering.add(task)
            task.add_done_callback(answering.discard)
        for task in answering:
            task.cancel()  # nobody waits for these any more
        await asyncio.gather(*answering, return_exceptions=True)


async def _answer(target: InProcess, *, number: int, device_id: str, text: str, message_id: str) -> None:
    outcome: Answer | MoorlineError
    try:
        outcome = await target.send(device_id, text, message_id)
    except MoorlineError as error:
        outcome = error
    sys.stdout.buffer.write(as_line(number, outcome))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        asyncio.run(_work())
    except MoorlineError as error:
        sys.exit(f"moorline: {error}")
