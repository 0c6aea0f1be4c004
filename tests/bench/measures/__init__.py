"""What is measured, by the names that `--only` takes, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.bench.figures import Figure
from tests.bench.lab import Lab
from tests.bench.measures import (
    connections,
    devices,
    history,
    latency,
    memory,
    overload,
    saver,
    sends,
    start,
    tables,
    throughput,
)

Measure = Callable[[Lab], list[Figure]]

MEASURES: Mapping[str, Measure] = {
    "saver": saver.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "overload": overload.measure,
    "sends": sends.measure,
    "connections": connections.measure,
    "history": history.measure,
    "devices": devices.measure,
    "start": start.measure,
    "memory": memory.measure,
    "tables": tables.measure,
}
