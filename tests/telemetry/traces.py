"""A runtime whose spans are kept, and how a person would see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from moorline import Agent, Moorline, Settings
from moorline.manager import AgentProtocol
from moorline.telemetry import Tracing
from moorline_agents.transport import Rules, rule_client
from tests.turns.runtimes import World, obedient


class Traces:
    """Spans as they end."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("caller")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def attributes(self, name: str) -> list[dict[str, Any]]:
        """Those of all spans of this name."""
        return [dict(span.attributes or {}) for span in self.named(name)]

    def one(self, name: str) -> Mapping[str, Any]:
        """The attributes of the only span of this name."""
        (attributes,) = self.attributes(name)
        return attributes

    def tree(self) -> str:
        """The traces as indented lines, with what failed."""
        return "\n".join(self._lines(None, ""))

    def everything(self) -> str:
        """All that the spans say, as one text."""
        return "\n".join(json.dumps(json.loads(span.to_json())) for span in self.spans)

    def _lines(self, parent: int | None, indent: str) -> Iterator[str]:
        known = {span.context.span_id for span in self.spans if span.context}
        for span in self.spans:
            above = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
            if above == parent and span.context is not None:
                failed = f" ! {span.status.description}" if not span.status.is_ok else ""
                yield f"{indent}{span.name}{failed}"
                yield from self._lines(span.context.span_id, f"{indent}  ")


def traced(
    dsn: str,
    traces: Traces,
    *,
    rules: Rules = obedient,
    agents: Sequence[AgentProtocol] | None = None,
    world: World | None = None,
    content: bool = False,
    **settings: Any,
) -> Moorline:
    """A runtime with the agent `desk`, which does what it is told, or with `agents`."""
    desk = Agent(name="desk", description="does it", instructions="desk", tools=(world or World()).tools())
    return Moorline(
        Settings(database_url=dsn, **settings),
        agents=agents or [desk],
        client=lambda: rule_client(rules),
        tracing=Tracing(content=content, provider=traces.provider),
    )


Opened = Callable[..., Moorline]
