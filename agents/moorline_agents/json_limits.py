"""What JSON from a model server may hold, so that it can be stored, and sent to the strictest server again."""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import from_json

from moorline_agents.plain_json import MAX_DEPTH, whole_text

_LARGEST_INTEGER = 10**300  # Python itself reads back no more than 4,300 digits, other languages fewer


def parsed(text: str) -> Any:
    """The value of JSON text. Raises `ValueError`, whatever the text, with a message that quotes nothing of it."""
    value = from_json(text, allow_inf_nan=False)
    reason = objection(value)
    if reason is not None:
        raise ValueError(reason)
    return value


def objection(value: Any) -> str | None:
    """Why a value that was read from JSON is not taken; None if it is."""
    left = [(value, 1)]
    while left:
        part, depth = left.pop()
        if isinstance(part, dict | list):
            if depth > MAX_DEPTH:
                return f"it is nested deeper than {MAX_DEPTH} levels"
            inner = [*part, *part.values()] if isinstance(part, dict) else part
            left.extend((each, depth + 1) for each in inner)
        elif isinstance(part, str):
            if "\0" in part:
                return "it contains the character U+0000"
            if whole_text(part) != part:
                return "it contains half a character"
        elif isinstance(part, float) and not math.isfinite(part):
            return "it contains a number that is not finite"
        elif isinstance(part, int) and abs(part) > _LARGEST_INTEGER:
            return "it contains a number that is too large"
    return None
