"""Values that agents' code gives, as JSON that can be stored, shown to a model and read again. What comes from outside
is `plain_json`'s."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from moorline_agents.plain_json import MAX_DEPTH, whole_text

MAX_CHARACTERS = 65_536
"""Characters of JSON that a value may have."""

_CUT = f"This result was longer than {MAX_CHARACTERS:,} characters; only its beginning is shown."


def settled(value: Any) -> Any:
    """The value as JSON; never raises. Dates, pydantic models and the like become what pydantic makes of them, NaN and
    the infinities null, half characters U+FFFD; of one that is too long the beginning is kept, as text."""
    walk = _Walk(exact=False)
    result = walk.json(value, MAX_DEPTH)
    if walk.room >= 0:
        return result
    return {"cut": _CUT, "beginning": json.dumps(result, ensure_ascii=False)[:MAX_CHARACTERS]}


def exact(value: Any) -> Any:
    """Like `settled`, but raises `ValueError` for what would lose something: NaN and the infinities, a value that is
    too long or too deep, and one that cannot be read."""
    walk = _Walk(exact=True)
    result = walk.json(value, MAX_DEPTH)
    if walk.room < 0:
        raise ValueError(f"it is longer than {MAX_CHARACTERS:,} characters")
    return result


class _Walk:
    """One way through a value, which ends early once there is no room left."""

    def __init__(self, *, exact: bool) -> None:
        self.room = MAX_CHARACTERS
        """Characters left; negative once the value has turned out too long."""
        self._exact = exact

    def json(self, value: Any, depth: int) -> Any:
        self.room -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int | float):
            return self._number(value)
        if not depth:
            return self._lost(f"it is nested more than {MAX_DEPTH} deep", "(nested too deeply)")
        if isinstance(value, Mapping | list | tuple):
            return self._members(value, depth - 1)
        return self.json(self._plain(value), depth - 1)

    def _members(self, value: Mapping[Any, Any] | Iterable[Any], depth: int) -> Any:
        if isinstance(value, Mapping):
            members: dict[str, Any] = {}
            for name, member in value.items():
                if self.room < 0:
                    break
                members[self._text(name if isinstance(name, str) else _name(name))] = self.json(member, depth)
            return members
        items: list[Any] = []
        for item in value:
            if self.room < 0:
                break
            items.append(self.json(item, depth))
        return items

    def _text(self, text: str) -> str:
        kept = whole_text(str.__str__(text)[: max(self.room, 0) + 1])
        self.room -= len(text) + 2
        return kept

    def _number(self, value: float) -> Any:
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._lost("it has a number that JSON does not know")
        try:
            self.room -= len(str(int(value)))
        except ValueError:  # Python writes no numbers of that length
            return self._lost("it has a number of too many digits", "(a number of too many digits)")
        return int(value)

    def _plain(self, value: Any) -> Any:
        try:
            return to_jsonable_python(value, fallback=str, bytes_mode="base64")
        except Exception:
            return self._lost(f"it has a {type(value).__name__} that cannot be read", f"({type(value).__name__})")

    def _lost(self, why: str, instead: str | None = None) -> str | None:
        if self._exact:
            raise ValueError(why)
        return instead


def _name(key: Any) -> str:
    return json.dumps(key) if key is None or isinstance(key, bool | int | float) else str(key)
