"""What is closed with a runtime that has used it: models, and sources of tools."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Protocol, runtime_checkable


@runtime_checkable
class Closable(Protocol):
    """A model or a source of tools that has something to close when it is no longer needed."""

    async def aclose(self) -> None: ...


def closables(agents: Sequence[object], *models: object) -> list[Closable]:
    """Those of the models, of the agents' models, their fallbacks and what makes their summaries, and of their sources
    of tools that can be closed, each of them once."""
    used = (
        (getattr(each, "model", None), getattr(each, "summary", None), *_of(each, "fallbacks"), *_of(each, "tools"))
        for each in agents
    )
    found = {id(each): each for each in (*models, *chain.from_iterable(used))}
    return [each for each in found.values() if isinstance(each, Closable)]


def _of(agent: object, field: str) -> Sequence[object]:
    return getattr(agent, field, ())
