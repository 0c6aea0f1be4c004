"""Telemetry: traces through OpenTelemetry's API, and metrics for Prometheus. It needs the extra `telemetry`."""

from moorline.telemetry.tracing import Tracing

__all__ = ["Tracing"]
