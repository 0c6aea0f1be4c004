"""The result of a benchmark: a figure from several runs, and the bound it should keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table. `values` are those of the single runs, mostly ratios."""

    path: str
    """What is measured: the `saver` alone, or a whole `run`."""
    what: str
    values: tuple[float, ...]
    unit: str = "×"  # noqa: RUF001 - meant
    at_least: float | None = None
    at_most: float | None = None
    seen: str = ""
    """What was measured, in absolute figures."""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None if there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def score(self) -> tuple[float, float, float] | None:
        """How well the bound is kept (1 is just kept, more is better): the lowest, the median, the highest."""
        if self.at_least:
            low, middle, high = (value / self.at_least for value in (min(self.values), self.value, max(self.values)))
        elif self.at_most:
            low, middle, high = (self.at_most / value for value in (max(self.values), self.value, min(self.values)))
        else:
            return None
        return low, middle, high


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """The ratios run by run: each of ours against the neighbour's run of the same round."""
    return tuple(mine / other for mine, other in zip(ours, theirs, strict=True))
