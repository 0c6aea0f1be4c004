"""Texts as the rules read them, and names as people write them."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 500
"""How many characters of a text are read."""

_APOSTROPHES = re.compile("['`\N{ACUTE ACCENT}\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]")
_ENOUGH = 0.4  # of a word; "dentist" is near enough to "dental", "color" to "colouring"
_SHORTEST = 4
_TITLES = frozenset({"dr", "mr", "mrs", "ms", "prof"})
_GENERIC = frozenset({"check", "time", "times", "appointment", "appointments", "service", "services", "with"})


def plain(text: str) -> str:
    """`text` in lower case, without apostrophes and extra spaces; cut off if it is very long."""
    folded = unicodedata.normalize("NFKC", text[:LONGEST]).lower()
    return re.sub(r"\s+", " ", _APOSTROPHES.sub("", folded)).strip()


def named(text: str, names: Iterable[str]) -> str | None:
    """The name that the plain `text` most likely means; if two fit equally well, the later one in the text."""
    words = _words(text)
    scored = [(*_fit(words, name), name) for name in names]
    best = max(scored, default=(0.0, 0, ""), key=lambda fit: fit[:2])
    return best[2] if best[0] >= _ENOUGH else None


def person(text: str, names: Iterable[str]) -> str | None:
    """The name that shares a whole word with the plain `text`; titles do not count."""
    words = set(_words(text))
    return next((name for name in names if words & set(_words(name)) - _TITLES), None)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"(?<=\w)-(?=\w)", "", plain(text)))


def _fit(words: list[str], name: str) -> tuple[float, int]:
    """How well the best word fits a word of the name, from 0 to 1, and where it is in the text."""
    best = (0.0, 0)
    wanted = _words(name)
    pairs = ["".join(pair) for pair in pairwise(words)]
    for place, word in enumerate(words):
        for own in wanted:
            if word == own or (place < len(pairs) and pairs[place] in (own, "".join(wanted))):
                best = max(best, (1.0, place))
            elif word not in _GENERIC:
                best = max(best, (_shared(word, own) / max(len(word), len(own)), place))
    return best


def _shared(word: str, other: str) -> int:
    """How many letters the two words share at the beginning; 0 if these are too few to tell."""
    count = 0
    for mine, theirs in zip(word, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count if count >= _SHORTEST else 0
