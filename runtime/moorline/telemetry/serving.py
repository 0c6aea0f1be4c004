"""What `moorline serve` switches on: traces, metrics, and /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from moorline.runtime import Moorline
from moorline.telemetry.exposition import MetricsApp
from moorline.telemetry.metrics import Metrics
from moorline.telemetry.settings import TelemetrySettings
from moorline.telemetry.shared import shared_registry
from moorline.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from fastapi import FastAPI

SAMPLE = 1.0
"""Seconds between two looks at a process's connections, when another process shows them."""


def extend(app: FastAPI, moorline: Moorline) -> None:
    """Watches a `Moorline` that is not open yet, and adds /metrics to its app. What the team watches with stays."""
    settings = TelemetrySettings()
    metrics = next((each for each in moorline.observers if isinstance(each, Metrics)), None)
    if metrics is None:
        metrics = Metrics()
        moorline.watch(metrics)
    if not moorline.is_traced:
        moorline.watch(tracing=Tracing(content=settings.trace_content))
    app.router.routes.append(Route("/metrics", MetricsApp(moorline, metrics, settings=settings)))
    if shared_registry() is not None:
        app.router.lifespan_context = _sampling(app.router.lifespan_context, moorline, metrics)


def _sampling(lifespan: Any, moorline: Moorline, metrics: Metrics) -> Any:
    """The lifespan, in which the connections of this process are looked at again and again."""

    async def sample() -> None:
        while True:
            metrics.pool_used(await moorline.pool_use())
            await asyncio.sleep(SAMPLE)

    @asynccontextmanager
    async def wrapped(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            task = asyncio.create_task(sample())
            try:
                yield state
            finally:
                task.cancel()
                await asyncio.wait([task])

    return wrapped
