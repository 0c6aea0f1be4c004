"""A graph as a PNG, drawn here: nothing is sent anywhere. It needs matplotlib."""

from __future__ import annotations

from collections import defaultdict
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorline.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph

WIDE, TALL = 2.4, 1.0
"""Inches between the middles of two columns at least, and of two boxes of a column."""

LETTER, AROUND = 0.11, 1.0
"""Inches that a letter of a name takes, and what a column has besides the longest."""

_NODE = {"boxstyle": "round,pad=0.5", "facecolor": "#eef4fa", "edgecolor": "#4a7aa7"}
_END = {"boxstyle": "round,pad=0.5", "facecolor": "#ffffff", "edgecolor": "#7b8794"}


def write_png(graph: Graph, file: Path) -> None:
    """Draws a graph that LangGraph describes (`get_graph()`), from the first node on the left to the last on the right.
    Arrows are dashed where a run decides on the way, and brown where it goes back. Raises `ConfigurationError` if
    matplotlib is missing, or the file cannot be written."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only if it is used
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ConfigurationError(
            "Pictures need matplotlib; run `pip install 'moorline[graph]'`. Without --png, `moorline graph` needs none."
        ) from None
    places = _places(graph)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(abs(row) for _, row in places.values()) * 2
    wide = max(WIDE, LETTER * max(map(len, places)) + AROUND)
    figure = Figure(figsize=(wide * columns, TALL * (rows + 1)), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-(rows + 1) / 2, (rows + 1) / 2))
    axes.set_axis_off()
    boxes: dict[str, Any] = {}
    for name, place in places.items():
        style = _END if name in ("__start__", "__end__") else _NODE
        boxes[name] = axes.text(*place, name.strip("_"), ha="center", va="center", bbox=style, zorder=2)
    figure.draw_without_rendering()  # arrows end at the edges of boxes, which are known then
    for edge in graph.edges:
        if edge.source == edge.target:
            continue
        back = places[edge.source][0] >= places[edge.target][0]
        arrow = {
            "arrowstyle": "-|>",
            "color": "#b7791f" if back else "#7b8794",
            "linestyle": "--" if edge.conditional else "-",
            "connectionstyle": f"arc3,rad={_bend(places[edge.source], places[edge.target], wide) if back else 0.08}",
            "patchA": boxes[edge.source].get_bbox_patch(),
            "shrinkB": 3,
            "patchB": boxes[edge.target].get_bbox_patch(),
        }
        axes.annotate("", xy=places[edge.target], xytext=places[edge.source], zorder=1, arrowprops=arrow)
    try:
        figure.savefig(file, format="png")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}. Name another file.") from error


def _bend(source: tuple[float, float], target: tuple[float, float], wide: float) -> float:
    """How far an arrow that goes back bends out, for its length: over a box, and not out of the picture."""
    length = hypot((source[0] - target[0]) * wide, (source[1] - target[1]) * TALL)
    return min(0.3, 0.8 * TALL / length)


def _places(graph: Graph) -> dict[str, tuple[float, float]]:
    """Column and row of each node: the column by how many steps it is from the first node, the last node on its own."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        following[edge.source].append(edge.target)
    steps, reached = {name: 0 for name in graph.nodes if name == "__start__"}, ["__start__"]
    for name in reached:
        for other in following[name]:
            if other not in steps:
                steps[other] = steps[name] + 1
                reached.append(other)
    last = max((steps.get(name, 0) for name in graph.nodes if name != "__end__"), default=0) + 1
    columns: defaultdict[int, list[str]] = defaultdict(list)
    for name in graph.nodes:
        columns[last if name == "__end__" else steps.get(name, 1)].append(name)
    return {
        name: (column, (len(names) - 1) / 2 - row)
        for column, names in columns.items()
        for row, name in enumerate(names)
    }
