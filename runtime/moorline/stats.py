"""Stats: the figures of a period with what they cost, as values, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any, get_args

from moorline.prices import Prices
from moorline_checkpoint.ending import Ending
from moorline_checkpoint.figures import Figures, SessionFigures
from moorline_checkpoint.statistics import Statistics
from moorline_migrations.plain import one_line

MANAGER = "manager"
"""What stands for the manager itself where an agent is named."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the tokens of a model cost that an agent spent on a day."""

    day: date
    agent: str | None
    model: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What `Moorline.stats(since=…)` answers."""

    now: Statistics
    """What all devices are doing right now."""
    figures: Figures
    costs: tuple[Cost, ...]
    unpriced: tuple[str, ...]
    """Models that were asked and have no price; what they cost is in no sum."""

    @property
    def totals(self) -> Mapping[str, Decimal]:
        """What all of it cost, by currency."""
        return {
            currency: sum((each.amount for each in self.costs if each.currency == currency), Decimal())
            for currency in sorted({each.currency for each in self.costs})
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; days and moments are text as in ISO 8601, durations are seconds, money is a decimal number as
        text."""
        told: dict[str, Any] = _plain(
            {
                **asdict(self.figures),
                "now": asdict(self.now),
                "costs": [asdict(each) for each in self.costs],
                "totals": dict(self.totals),
                "unpriced": list(self.unpriced),
            }
        )
        return told

    def to_text(self) -> str:
        """Tables for a terminal."""
        found = self.figures
        sessions = [("all agents", found.sessions), *sorted(found.sessions_by_agent.items())]
        costs = {(each.day, each.agent, each.model): f"{each.amount:.4f} {each.currency}" for each in self.costs}
        parts = [
            f"From {found.since:%Y-%m-%d %H:%M} UTC to {found.until:%Y-%m-%d %H:%M} UTC",
            _table(_SESSIONS, [[agent, *_cells(each)] for agent, each in sessions]),
            _table(("day", "agent", "turns", "people"), list(_turns(found))),
            _table(
                ("day", "agent", "model", "input tokens", "output tokens", "cost"),
                list(_tokens(found, costs)),
            ),
            *(f"Cost: {amount:.4f} {currency}" for currency, amount in self.totals.items()),
        ]
        if self.unpriced:
            parts.append(f"Without a price in MOORLINE_PRICES: {', '.join(map(one_line, self.unpriced))}")
        return "\n\n".join(filter(None, parts))


def stats_of(now: Statistics, figures: Figures, prices: Prices) -> Stats:
    """The figures, with what they cost."""
    costs = tuple(
        Cost(
            day=each.day,
            agent=each.agent,
            model=each.model,
            currency=prices[each.model].currency,
            amount=prices[each.model].of(each.input_tokens, each.output_tokens),
        )
        for each in figures.tokens
        if each.model in prices
    )
    unpriced = sorted({each.model for each in figures.tokens} - {*prices})
    return Stats(now=now, figures=figures, costs=costs, unpriced=tuple(unpriced))


_SESSIONS = ("sessions", "started", "ended", *(why.replace("_", " ") for why in get_args(Ending)), "p50", "p95")


def _cells(figures: SessionFigures) -> list[object]:
    ended = figures.ended
    seconds = ["" if each is None else f"{each:.0f} s" for each in (figures.p50, figures.p95)]
    return [figures.started, sum(ended.values()), *(ended[why] for why in get_args(Ending)), *seconds]


def _turns(figures: Figures) -> Iterator[list[object]]:
    for day in figures.days:
        yield [day.day, "all agents", day.turns, day.people]
        for each in figures.turns:
            if each.day == day.day:
                yield ["", each.agent or MANAGER, each.turns, each.people]


def _tokens(figures: Figures, costs: Mapping[tuple[date, str | None, str], str]) -> Iterator[list[object]]:
    for each in figures.tokens:
        cost = costs.get((each.day, each.agent, each.model), "")
        yield [each.day, each.agent or MANAGER, each.model, each.input_tokens, each.output_tokens, cost]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, or nothing without rows."""
    if not rows:
        return ""
    lines = [list(head), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case _:
            return value
