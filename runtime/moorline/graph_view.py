"""The manager graph as a picture: START → route → one of the agents → END, and hand-overs between them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from moorline_checkpoint import html
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from moorline.manager import AgentProtocol

LETTER = 7.4
"""Pixels that a letter is taken to be wide."""
HEIGHT, GAP, MARGIN = 48, 26, 16
"""Pixels: of a box, between two boxes, around all of them."""
LONGEST = 54
"""Letters that are shown of a description."""

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933;text-anchor:middle}.s{font-size:11px;fill:#52606d}"
    "rect{fill:#eef4fa;stroke:#4a7aa7}.e{fill:#fff;stroke:#7b8794}path{fill:none;stroke:#7b8794;stroke-width:1.3}"
    ".h{stroke-dasharray:4 3;stroke:#b7791f}"
)
_ARROW = (
    '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
    '<path d="M0 0L8 4L0 8z" style="fill:#7b8794;stroke:none"/></marker>'
)


@dataclass(frozen=True, kw_only=True)
class DrawnAgent:
    """An agent as the picture shows it."""

    name: str
    description: str
    inside: str
    """What its part of the graph is made of."""


@dataclass(frozen=True)
class ManagerGraph:
    """The agents of a manager graph. A notebook shows how messages go through it."""

    agents: Sequence[DrawnAgent]

    def _repr_html_(self) -> str:
        source = b64encode(self.svg().encode()).decode("ascii")
        return html.image(f"data:image/svg+xml;base64,{source}", alt=str(self))

    def __str__(self) -> str:
        """The same in words."""
        names = ", ".join(agent.name for agent in self.agents)
        return f"START → route → one of {names} → END. An agent may hand a message over to another."

    def svg(self) -> str:
        """The picture as an SVG document."""
        wide = max(180, *(LETTER * max(len(a.name), len(_short(a.description))) + 24 for a in self.agents))
        left, tall = 250, len(self.agents) * (HEIGHT + GAP) - GAP
        right, middle = left + wide, MARGIN + tall / 2
        parts = [
            _box(MARGIN, middle, 62, "START", css="e"),
            _arrow(MARGIN + 62, middle, 120, middle),
            _box(120, middle, 80, "route"),
            _box(right + 50, middle, 50, "END", css="e"),
        ]
        for place, agent in enumerate(self.agents):
            y = MARGIN + HEIGHT / 2 + place * (HEIGHT + GAP)
            parts += [
                _arrow(200, middle, left, y),
                _box(left, y, wide, agent.name, below=_short(agent.description), told=agent.inside),
                _arrow(right, y, right + 50, middle),
            ]
            if place:
                x, top = left + wide / 2, y - HEIGHT / 2 - GAP
                parts.append(f'<path class="h" d="M{x} {top}v{GAP}" marker-start="url(#a)" marker-end="url(#a)"/>')
                parts.append(f'<text class="s" x="{x + 40}" y="{top + GAP / 2 + 4}">hand over</text>')
        size = f'width="{right + 116:.0f}" height="{tall + 2 * MARGIN:.0f}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style><defs>{_ARROW}</defs>'
            f'<rect class="e" style="stroke:none" width="100%" height="100%"/>{"".join(parts)}</svg>'
        )


def graph_of(agents: Sequence[AgentProtocol]) -> ManagerGraph:
    """The picture of the manager graph of these agents."""
    return ManagerGraph(
        tuple(
            DrawnAgent(
                name=agent.name,
                description=agent.description,
                inside="a graph of its own" if agent.entry == agent.name else "think ⇄ act",
            )
            for agent in agents
        )
    )


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _box(x: float, y: float, wide: float, name: str, *, below: str = "", told: str = "", css: str = "") -> str:
    middle = x + wide / 2
    title = f"<title>{escape(told)}</title>" if told else ""
    second = f'<text class="s" x="{middle}" y="{y + 15}">{escape(below)}</text>' if below else ""
    return (
        f'<g>{title}<rect class="{css}" x="{x}" y="{y - HEIGHT / 2}" width="{wide}" height="{HEIGHT}" rx="8"/>'
        f'<text x="{middle}" y="{y - 3 if below else y + 5}">{escape(one_line(name))}</text>{second}</g>'
    )


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    bend = (x + to_x) / 2
    return f'<path d="M{x} {y}C{bend} {y} {bend} {to_y} {to_x} {to_y}" marker-end="url(#a)"/>'
