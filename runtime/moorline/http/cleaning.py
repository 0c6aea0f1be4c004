"""Cleaning up in the background of `moorline serve`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from moorline.errors import MoorlineError
from moorline.runtime import Moorline

logger = logging.getLogger("moorline.cleanup")


def cleaning(lifespan: Any, moorline: Moorline) -> Any:
    """The lifespan, in which this process cleans up again and again, unless another one has just done so."""

    @asynccontextmanager
    async def wrapped(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            task = asyncio.create_task(_clean(moorline))
            try:
                yield state
            finally:
                task.cancel()
                await asyncio.wait([task])

    return wrapped


async def _clean(moorline: Moorline) -> None:
    interval = moorline.settings.cleanup_interval
    while True:
        # Processes that were started together shall not all come at once.
        await asyncio.sleep(interval * random.uniform(0.8, 1.2))  # noqa: S311 - nothing secret
        try:
            await moorline.clean_up(pause=interval / 2)
        except MoorlineError as error:
            logger.warning("The cleanup failed (%s) and will be tried again.", type(error).__name__)
