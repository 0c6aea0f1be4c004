"""`moorline load`: runs a load test with a progress bar, and shows its result."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import TextIOWrapper

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moorline.load.conversations import Plan
from moorline.load.over_http import over_http
from moorline.load.processes import in_processes
from moorline.load.report import Report, seconds
from moorline.load.running import run_load
from moorline.load.targets import Target, in_process
from moorline.runtime import Moorline
from moorline_migrations.plain import one_line

BAR = 48
"""Characters of the longest bar."""


async def load(
    plan: Plan, *, moorline: Moorline | None, app: str | None, latency: float, processes: int, url: str | None
) -> bool:
    """Puts the `Moorline` under load, or the server at `url`. Ctrl-C ends it early.

    Progress goes to standard error, the result to standard output. Returns whether every message was answered, and
    nothing was lost, mixed up or doubled.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with _target(moorline, app=app, latency=latency, processes=processes, url=url) as target:

        def end() -> None:
            stop.set()
            loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C waits for nothing

        loop.add_signal_handler(signal.SIGINT, end)
        try:
            report = await _shown(plan, target, stop)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in summary(report, bar=_bar())))
    return report.good


@asynccontextmanager
async def _target(
    moorline: Moorline | None, *, app: str | None, latency: float, processes: int, url: str | None
) -> AsyncIterator[Target]:
    if url is not None:
        async with over_http(url) as server:
            yield server
        return
    assert moorline is not None  # noqa: S101 - without a server there is a runtime
    async with moorline:
        if processes == 1:
            yield in_process(moorline)
            return
        async with in_processes(moorline, processes, app=app, latency=latency) as several:
            yield several


async def _shown(plan: Plan, target: Target, stop: asyncio.Event) -> Report:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("messages", total=plan.messages)
        return await run_load(plan, target, stop=stop, on_answer=lambda: progress.advance(bar))


def summary(report: Report, *, bar: str) -> list[str]:
    """The result as lines of text, with a plot of the latencies."""
    lines = [f"{name:>24}  {value}" for name, value in report.figures.items()]
    most = max((number for *_, number in report.histogram()), default=1)
    if report.latencies:
        lines += ["", "latency of the messages"]
    for low, high, number in report.histogram():
        length = round(BAR * number / most)
        drawn = bar * length or ("." if number else "")
        lines.append(f"{seconds(low):>8} to {seconds(high):>8}  {drawn}{' ' if drawn else ''}{number:,}")
    if report.stopped:
        lines += ["", f"It was stopped early: {report.plan.messages - report.answered:,} messages have no reply."]
    faults = list(report.examples())
    return [*lines, "", *faults] if faults else lines


def _bar() -> str:
    """What bars are made of, if the output can show it."""
    with suppress(UnicodeEncodeError, LookupError):
        "█".encode(sys.stdout.encoding or "ascii")
        return "█"
    return "#"
