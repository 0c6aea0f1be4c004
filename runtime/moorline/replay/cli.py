"""`moorline replay`: plays a file of recorded conversations and says what went wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from moorline.errors import ConfigurationError
from moorline.replay.conversations import Conversation, read_conversations
from moorline.replay.player import Played, Restart, opener, play
from moorline.settings import Settings
from moorline_migrations.plain import one_line


async def replay(file: Path, *, restart: Restart, limit: int | None, skip_bad: bool, settings: Settings) -> bool:
    """Plays the file's conversations (only the first `limit`), as many at once as there are processors.

    Progress goes to standard error, a summary to standard output. Returns whether every turn that was played was as
    recorded. Before anything is played, a record that cannot be is refused with its line; with `skip_bad` it is
    reported and the others are played.
    """
    skipped: list[str] = []
    conversations = list(islice(read_conversations(file, skipped=skipped if skip_bad else None), limit))
    for each in skipped:
        sys.stderr.write(f"Skipped: {one_line(each)}\n")
    if not conversations:
        raise ConfigurationError(f"{file} contains no conversation to play; docs/replay.md describes the format.")
    at_once = asyncio.Semaphore(os.cpu_count() or 1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = perf_counter()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"restart: {restart}", total=len(conversations))

        async def play_one(conversation: Conversation) -> Played:
            async with at_once:
                played = await play(conversation, restart=restart, settings=settings, open_moorline=opener(settings))
            progress.advance(bar)
            return played

        played = await asyncio.gather(*map(play_one, conversations))
    sys.stdout.write(summary(played, restart=restart, seconds=perf_counter() - began))
    if skipped:
        sys.stdout.write(f"{len(skipped)} records were skipped.\n")
    return not any(each.mismatches for each in played)


def summary(played: Sequence[Played], *, restart: Restart, seconds: float) -> str:
    """A summary of what was played, and a line for each mismatch."""
    good = sum(not each.mismatches for each in played)
    turns = sum(each.turns for each in played)
    came_back = sum(each.came_back for each in played)
    wrong = [mismatch for each in played for mismatch in each.mismatches]
    lines = [
        f"{good} of {len(played)} conversations as recorded, {len(wrong)} mismatches.",
        f"{turns} turns, {came_back} of them of an agent come back to; restart between turns: {restart}; "
        f"{seconds:.1f} s.",
        *(one_line(f"{mismatch.conversation}, turn {mismatch.turn}: {mismatch.what}") for mismatch in wrong),
    ]
    return "\n".join(lines) + "\n"
