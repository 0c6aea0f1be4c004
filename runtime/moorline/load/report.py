"""What a load test found out: how fast it was, and whether anything was lost, mixed up or answered twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from moorline.load.conversations import Plan
from moorline.load.judging import Verdict
from moorline_checkpoint import html

ROWS = 12
"""Lines of the plot."""

EXAMPLES = 3
"""What is told of each kind of fault."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a load test."""

    plan: Plan
    seconds: float
    """From the first message to the last reply."""
    turns: int
    """Turns that were answered."""
    latencies: Sequence[float]
    """Seconds from the first delivery of each message to its reply, in the order in which people spoke."""
    verdict: Verdict
    again: Mapping[str, int] = field(default_factory=dict)
    """How often messages were delivered again, by the error before."""
    stopped: bool = False
    """Whether it ended early, because its time was over or it was told to."""

    @property
    def answered(self) -> int:
        """Messages that got a reply, each counted once."""
        return len(self.latencies)

    @property
    def good(self) -> bool:
        """Whether every message was answered, and nothing was lost, mixed up or doubled."""
        return self.answered == self.plan.messages and self.verdict.clean

    @property
    def turns_per_second(self) -> float:
        return self.turns / self.seconds if self.seconds else 0.0

    def percentile(self, percent: int) -> float:
        """The seconds within which `percent` of 100 messages were answered; `nan` if none was."""
        if len(self.latencies) < 2:  # noqa: PLR2004 - as quantiles needs
            return self.latencies[0] if self.latencies else math.nan
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1]

    @property
    def counts(self) -> dict[str, int]:
        """How many messages were lost, mixed and duplicated."""
        verdict = self.verdict
        return {"lost": len(verdict.lost), "mixed": len(verdict.mixed), "duplicated": len(verdict.duplicated)}

    @property
    def figures(self) -> dict[str, str]:
        """What is shown of it, by its name."""
        return {
            "messages answered": f"{self.answered:,} of {self.plan.messages:,}",
            "turns": f"{self.turns:,} in {self.seconds:.1f} s",
            "turns/s": f"{self.turns_per_second:,.0f}",
            **{f"p{percent}": seconds(self.percentile(percent)) for percent in (50, 95, 99)},
            **{what: f"{number:,}" for what, number in self.counts.items()},
            **{f"again after {name}": f"{number:,}" for name, number in self.again.items()},
        }

    def _repr_html_(self) -> str:
        return html.fields(self.figures, above="\n".join(self.examples()))

    def examples(self) -> Iterator[str]:
        """A few of the faults of each kind, a line for each."""
        for kind in ("lost", "mixed", "duplicated"):
            found: Mapping[str, str] = getattr(self.verdict, kind)
            for mark, what in list(found.items())[:EXAMPLES]:
                yield f"{kind}: message {mark}: {what}"
            if len(found) > EXAMPLES:
                yield f"{kind}: and {len(found) - EXAMPLES:,} more"

    def histogram(self) -> list[tuple[float, float, int]]:
        """How many messages took from so many seconds to so many, in steps of equal width."""
        if not self.latencies:
            return []
        low, high = min(self.latencies), max(self.latencies)
        width = max((high - low) / ROWS, 1e-3)
        steps = [0] * min(ROWS, math.floor((high - low) / width) + 1)
        for each in self.latencies:
            steps[min(math.floor((each - low) / width), len(steps) - 1)] += 1
        return [(low + place * width, low + (place + 1) * width, number) for place, number in enumerate(steps)]


def seconds(value: float) -> str:
    """A time as people read it."""
    if math.isnan(value):
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
