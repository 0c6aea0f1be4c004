"""Metrics: an observer that counts and measures what turns tell. `exposition` shows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from moorline.events import (
    CheckRefused,
    Event,
    ModelFinished,
    SessionChanged,
    ToolFinished,
    TurnFailed,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from moorline.telemetry.labels import Names
from moorline_checkpoint.pools import PoolUse

TURN = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 15, 30, 60)
MODEL = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
FIRST_TEXT = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16)
SESSION = (60, 300, 1800, 3600, 21_600, 86_400, 604_800)
TOOL = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60)

MANAGER = "manager"
"""What stands for the agent where it is the manager itself: routing, and its own replies."""


class Metrics:
    """What turns did, for Prometheus: `Moorline(observers=[Metrics()])`, once in a process, for any number of runtimes.

    Labels are names of agents, models, tools, errors and operations only, and of each a bounded number.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry

        def counter(name: str, what: str) -> Counter:
            return Counter(f"moorline_{name}", what, registry=registry)

        def counters(name: str, what: str, *labels: str) -> Callable[..., Counter]:
            # Looking a series up takes longer than counting in it.
            return cache(Counter(f"moorline_{name}", what, labels, registry=registry).labels)

        def histograms(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Callable[..., Histogram]:
            found = Histogram(f"moorline_{name}_seconds", what, labels, buckets=buckets, registry=registry)
            return cache(found.labels) if labels else lambda: found

        self._turns = counters("turns", "Turns by who answered and how they ended.", "agent", "outcome")
        self._attempts = counter("turn_attempts", "How often turns were begun.")
        self._recovered = counter("turns_recovered", "Turns that were finished in place of a crashed process.")
        self._turn = histograms("turn", "From the beginning of a turn to its commit.", TURN, "agent")
        self._wait = histograms("turn_wait", "From a call to the beginning of its turn.", WAIT)
        self._errors = counters("errors", "Calls that failed, by the class of the error.", "kind")
        self._model = histograms("model", "Model calls.", MODEL, "model")
        self._model_errors = counters("model_errors", "Model calls that failed.", "model", "kind")
        self._first_text = histograms(
            "first_text", "From asking a model to the first of its text.", FIRST_TEXT, "model"
        )
        self._tokens = counters("tokens", "Tokens as the model servers counted them.", "agent", "model", "kind")
        self._tool = histograms("tool", "Tool calls.", TOOL, "agent", "tool")
        self._refusals = counters("tool_refusals", "Tool calls that were refused.", "agent", "tool")
        self._check_refusals = counters("check_refusals", "What checks have refused.", "agent", "check", "where")
        self._sessions = counters("session_changes", "Sessions that changed hands.", "why")
        self._session = histograms("session", "How long sessions had lasted when they ended.", SESSION, "agent", "why")
        self._cleanups = counter("cleanups", "Cleanups of expired sessions.")
        self._cleaned = counter("sessions_cleaned_up", "Expired sessions that cleanups dropped.")
        self._operations = counters("session_operations_failed", "Session operations that failed.", "operation")
        pool = Gauge(
            *("moorline_pool_connections", "Connections of the live processes.", ["state"]),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pool: Callable[..., Gauge] = cache(pool.labels)
        self._pools: dict[object, PoolUse] = {}
        self._agents, self._models, self._tools = Names(), Names(), Names()
        self._told: dict[type[Event], Callable[[Any], None]] = {
            TurnStarted: self._turn_started,
            TurnFinished: self._turn_finished,
            TurnFailed: self._turn_failed,
            ModelFinished: self._model_finished,
            UsageReported: self._usage_reported,
            ToolFinished: self._tool_finished,
            CheckRefused: self._check_refused,
            SessionChanged: self._session_changed,
        }
        self.takes = frozenset(self._told)
        """The types of events that it counts."""

    async def __call__(self, event: Event) -> None:
        """Takes in an event."""
        self._told[type(event)](event)

    def session_operation_failed(self, operation: str, error: Exception) -> None:  # noqa: ARG002 - as the watcher's
        self._operations(operation).inc()

    def session_ended(self, agent: str, why: str, seconds: float) -> None:
        self._session(self.agent(agent), why).observe(seconds)

    def sessions_cleaned_up(self, count: int) -> None:
        self._cleanups.inc()
        self._cleaned.inc(count)

    def pool_used(self, runtime: object, use: PoolUse | None) -> None:
        """The connections of one runtime in this process; the gauge has those of all."""
        if use is None:
            self._pools.pop(runtime, None)
        else:
            self._pools[runtime] = use
        for state in PoolUse._fields:
            self._pool(state).set(sum(getattr(each, state) for each in self._pools.values()))

    def agent(self, name: str | None) -> str:
        """The label of an agent."""
        return MANAGER if name is None else self._agents.label(name)

    def _turn_started(self, event: TurnStarted) -> None:
        if event.replayed:
            return
        self._attempts.inc()
        if event.recovered:
            self._recovered.inc()
        else:
            self._wait().observe(event.waited)

    def _turn_finished(self, event: TurnFinished) -> None:
        reply, agent = event.reply, self.agent(event.reply.agent)
        if reply.replayed:
            self._turns(agent, "replayed").inc()
            return
        self._turns(agent, "finished" if reply.interrupt is None else "asked").inc()
        self._turn(agent).observe(event.seconds)

    def _turn_failed(self, event: TurnFailed) -> None:
        self._errors(type(event.error).__name__).inc()
        if event.turn_no:
            self._turns(self.agent(event.agent), "failed").inc()

    def _model_finished(self, event: ModelFinished) -> None:
        model = self._models.label(event.model)
        self._model(model).observe(event.seconds)
        if event.first_text is not None:
            self._first_text(model).observe(event.first_text)
        if event.failed is not None:
            self._model_errors(model, event.failed).inc()

    def _usage_reported(self, event: UsageReported) -> None:
        agent, model = self.agent(event.agent), self._models.label(event.model)
        self._tokens(agent, model, "input").inc(event.usage.prompt_tokens)
        self._tokens(agent, model, "output").inc(event.usage.completion_tokens)

    def _tool_finished(self, event: ToolFinished) -> None:
        refused = event.refused
        # A model may make up the names of tools.
        made_up = refused is not None and refused.get("code") == "unknown_tool"
        agent, tool = self.agent(event.agent), "unknown" if made_up else self._tools.label(event.name)
        self._tool(agent, tool).observe(event.seconds)
        if refused is not None:
            self._refusals(agent, tool).inc()

    def _check_refused(self, event: CheckRefused) -> None:
        self._check_refusals(self.agent(event.agent), event.check, event.where).inc()

    def _session_changed(self, event: SessionChanged) -> None:
        self._sessions(event.why).inc()
