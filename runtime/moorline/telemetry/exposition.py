"""The page that Prometheus reads: the counters of all processes, and what the database holds, asked once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from ipaddress import ip_address, ip_network
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from moorline.addresses import came_through_proxy
from moorline.errors import MoorlineError
from moorline.runtime import Moorline
from moorline.telemetry.metrics import Metrics
from moorline.telemetry.settings import TelemetrySettings
from moorline.telemetry.shared import shared_registry
from moorline_checkpoint.statistics import AGES, SessionAges, Statistics

FRESH = 5.0
"""Seconds for which what the database holds is not asked again."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class MetricsApp:
    """An ASGI app that answers every GET with the metrics of an open `Moorline` and of the processes beside this one,
    if they share a folder: `app.routes.append(Route("/metrics", MetricsApp(moorline, metrics)))`.

    It answers the settings' `metrics_clients` only, and nobody through a proxy. If the database does not answer in
    time, everything else is shown, and `moorline_database_up` is 0.
    """

    def __init__(self, moorline: Moorline, metrics: Metrics, *, settings: TelemetrySettings | None = None) -> None:
        self._moorline = moorline
        self._metrics = metrics
        clients = (settings or TelemetrySettings()).metrics_clients
        self._clients = [ip_network(each) for each in clients]
        self._asking = asyncio.Lock()
        self._known: Statistics | None = None
        self._until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI's
        if scope["type"] != "http":
            return
        if not self._may_read(scope):
            await _answer(send, 403, b"text/plain", b"Not for this address; see MOORLINE_METRICS_CLIENTS.\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"text/plain", b"Use GET.\n")
        else:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            kind, page = await self.page(accept)
            await _answer(send, 200, kind.encode(), page)

    async def page(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and the page."""
        known = await self._statistics()
        encode, kind = choose_encoder(accept)
        return kind, await asyncio.to_thread(self._encoded, encode, known)

    def _encoded(self, encode: Callable[[CollectorRegistry], bytes], known: Statistics | None) -> bytes:
        counted = shared_registry() or self._metrics.registry
        held = CollectorRegistry()
        held.register(_Held(known, self._metrics))
        return encode(_Both(counted, held))

    async def _statistics(self) -> Statistics | None:
        async with self._asking:
            if time.monotonic() >= self._until:
                try:
                    self._known = await self._moorline.stats()
                except MoorlineError:
                    self._known = None
                self._until = time.monotonic() + FRESH
            return self._known

    def _may_read(self, scope: Scope) -> bool:
        if not scope.get("client") or came_through_proxy(name.decode("latin-1") for name, _ in scope["headers"]):
            return False
        try:
            client = ip_address(scope["client"][0])
        except ValueError:
            return False
        mapped = getattr(client, "ipv4_mapped", None)
        return any((mapped or client) in network for network in self._clients)


class _Both(CollectorRegistry):
    """Two registries on one page."""

    def __init__(self, *parts: CollectorRegistry) -> None:
        super().__init__()
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        for part in self._parts:
            yield from part.collect()


class _Held(Collector):
    """What the database holds."""

    def __init__(self, known: Statistics | None, metrics: Metrics) -> None:
        self._known = known
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        known = self._known
        up = "Whether the database has answered in time what it holds."
        yield GaugeMetricFamily("moorline_database_up", up, int(known is not None))
        if known is None:
            return
        sessions = GaugeMetricFamily("moorline_sessions", "Live sessions.", labels=["agent"])
        age = GaugeHistogramMetricFamily(
            "moorline_session_age_seconds", "For how long live sessions have lasted.", labels=["agent"]
        )
        for agent, ages in self._by_label(known).items():
            sessions.add_metric([agent], ages.count)
            limits = [*(f"{limit:g}" for limit in AGES), "+Inf"]
            age.add_metric([agent], list(zip(limits, accumulate(ages.by_age), strict=True)), ages.seconds)
        yield sessions
        yield age
        expired = "Sessions that have expired and wait for a cleanup."
        yield GaugeMetricFamily("moorline_sessions_expired", expired, known.expired)
        yield GaugeMetricFamily("moorline_messages_waiting", "Messages that wait for their turn.", known.waiting)
        longest = "For how long the first of them has waited."
        yield GaugeMetricFamily("moorline_message_wait_seconds", longest, known.longest_wait)

    def _by_label(self, known: Statistics) -> dict[str, SessionAges]:
        found: dict[str, SessionAges] = {}
        for agent, ages in known.sessions.items():
            label = self._metrics.agent(agent)
            found[label] = _sum(found[label], ages) if label in found else ages
        return found


def _sum(one: SessionAges, other: SessionAges) -> SessionAges:
    by_age = tuple(map(sum, zip(one.by_age, other.by_age, strict=True)))
    return SessionAges(count=one.count + other.count, seconds=one.seconds + other.seconds, by_age=by_age)


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers: Sequence[tuple[bytes, bytes]] = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
