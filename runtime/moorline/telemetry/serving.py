"""What `moorline serve` switches on: traces, metrics, and /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from moorline.runtime import Moorline
from moorline.telemetry.exposition import MetricsApp
from moorline.telemetry.metrics import Metrics
from moorline.telemetry.settings import TelemetrySettings
from moorline.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from fastapi import FastAPI


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
