"""Tasks that run beside others."""

from __future__ import annotations

import asyncio
from typing import Any


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels the tasks that still run, and returns when all have ended. What they raised is nobody's business."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in running:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not warn of it
