"""Draws how well each figure keeps its bound."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # draws without a screen

from matplotlib import pyplot

from tests.bench.figures import Figure

MET, MISSED = "#2a7f62", "#b8432f"
HEIGHT = 0.45
"""Inches a bar."""


def plot(figures: Sequence[Figure], path: Path) -> None:
    """One bar per figure: 1 is the bound, further right is better; the line on it shows the spread of the runs."""
    bounded = [(figure, score) for figure in reversed(figures) if (score := figure.score) is not None]
    if not bounded:
        return
    drawing, axes = pyplot.subplots(figsize=(11, 1.2 + HEIGHT * len(bounded)), layout="constrained")
    for place, (figure, (low, middle, high)) in enumerate(bounded):
        axes.barh(place, middle - 1, left=1, height=0.6, color=MET if figure.met else MISSED)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
        axes.annotate(
            f"{value}{figure.unit}", (max(high, middle, 1), place), (6, 0), textcoords="offset points", va="center"
        )
    labels = ["\n".join(textwrap.wrap(f"{figure.path}: {figure.what.replace('`', '')}", 62)) for figure, _ in bounded]
    axes.set_yticks(range(len(bounded)), labels, fontsize=8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("how far the bound is kept: 1 just so, more is better (line: lowest to highest run)")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
