"""Numbers as people write them: digits or English words."""

from __future__ import annotations

_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_VALUES = {word: value for value, word in enumerate(_WORDS)} | {"a": 1, "an": 1, "a couple of": 2}

COUNT = rf"(?:\d{{1,3}}|a couple of|an?|{'|'.join(_WORDS[1:])})"
"""A pattern for a count of something."""

HOUR = rf"(?:\d{{1,2}}|{'|'.join(_WORDS[1:])})"
"""A pattern for an hour on the clock."""


def value(word: str) -> int:
    """The number that a match of `COUNT` or `HOUR` stands for."""
    return int(word) if word.isdigit() else _VALUES[word]
