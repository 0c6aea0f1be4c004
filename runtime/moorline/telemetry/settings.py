"""The settings of telemetry, read from the environment like `moorline.Settings`."""

from __future__ import annotations

from moorline.addresses import Networks
from moorline.settings import EnvironmentSettings


class TelemetrySettings(EnvironmentSettings):
    """What `moorline serve` shows to whom."""

    metrics_clients: Networks = ("127.0.0.0/8", "::1")
    """The addresses and networks, separated by commas, that may read /metrics, without a proxy in between."""

    trace_content: bool = False
    """Whether spans hold what people, models and tools say."""
