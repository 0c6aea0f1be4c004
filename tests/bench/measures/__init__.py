"""What is measured, by the names that `--only` takes, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures import (
    connections,
    devices,
    effects,
    first_token,
    history,
    latency,
    memory,
    overload,
    processes,
    redis,
    saver,
    sends,
    start,
    tables,
    telemetry,
    throughput,
)

Measure = Callable[[Lab], list[Figure]]

MEASURES: Mapping[str, Measure] = {
    "saver": saver.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "overload": overload.measure,
    "processes": processes.measure,
    "effects": effects.measure,
    "first_token": first_token.measure,
    "sends": sends.measure,
    "connections": connections.measure,
    "history": history.measure,
    "devices": devices.measure,
    "start": start.measure,
    "memory": memory.measure,
    "tables": tables.measure,
    "telemetry": telemetry.measure,
    "redis": redis.measure,
}
