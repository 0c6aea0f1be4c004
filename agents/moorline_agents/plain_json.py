"""Text and JSON that come from outside: made whole, and bounded in depth and size, before anything uses them."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64
"""How deeply lists and mappings may be nested in each other."""


def whole_text(text: str) -> str:
    """The text in whole characters: the two halves of a pair (surrogates) become the one character that they stand
    for, and a half without its other becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def plain_json(value: Any, *, largest: int) -> tuple[Any, int]:
    """The value after a round trip through JSON, its texts made whole, and the characters of its JSON text.

    Raises ValueError, which says what is wrong, for anything that JSON does not have (NaN, a date, a cycle), for more
    than `largest` characters, and for more than `MAX_DEPTH` levels.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if len(text) > largest:
            raise ValueError(f"{len(text):,} characters, but only {largest:,} are allowed")
        plain = json.loads(whole_text(text))
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except TypeError as error:
        raise ValueError(str(error)) from error
    if _levels(plain) > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    return plain, len(text)


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def _levels(value: Any) -> int:
    levels, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        levels += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return levels
