"""Telemetry: traces through OpenTelemetry's API, and metrics for Prometheus. It needs the extra `telemetry`."""

from moorline.telemetry.exposition import MetricsApp
from moorline.telemetry.metrics import Metrics
from moorline.telemetry.settings import TelemetrySettings
from moorline.telemetry.shared import shared_folder
from moorline.telemetry.tracing import Tracing

__all__ = ["Metrics", "MetricsApp", "TelemetrySettings", "Tracing", "shared_folder"]
