"""Sentences: where the text of an answer may be cut while it is being written."""

from __future__ import annotations

import re
from typing import NamedTuple

_AFTER = "\"'”’»)]}*_~`」』】》）"  # noqa: RUF001 - as they are written
"""What may stand between the end of a sentence and the space behind it: quotes, brackets, Markdown."""
_STOPS, _WIDE_STOPS = ".!?…؟۔।॥።፧։။។៕།᱾꯫;‼⁇⁈⁉", "。！？｡"  # noqa: RUF001 - as they are written
"""What ends a sentence if space follows, as it does not in 3.5 and in addresses; and what always does."""
_END = re.compile(
    rf"\n|[{re.escape(_STOPS)}]+[{re.escape(_AFTER)}]*(?=\s)"
    rf"|[{_WIDE_STOPS}]+[{re.escape(_AFTER)}]*(?=[^{_WIDE_STOPS}{re.escape(_AFTER)}])"
)
_NUMBER = re.compile(r"\d+\.")  # of an item in a list


class Part(NamedTuple):
    """A sentence, or a line, and the space before it. At the end of a text the sentence may be empty."""

    space: str
    sentence: str


class Sentences:
    """Cuts a text that comes in pieces into the same sentences, however it was split. All of it is in one of them, in
    order; abbreviations may be cut."""

    def __init__(self) -> None:
        self._text = ""
        self._from = 0
        """Where in it the next end may be at the earliest."""

    def add(self, piece: str) -> list[Part]:
        """Takes the next piece and returns the sentences that have ended."""
        self._text += piece
        parts = []
        while (end := self._end()) is not None:
            parts.append(self._take(end))
        return parts

    def end(self) -> list[Part]:
        """Returns what is left, when no more comes."""
        last = self._take(len(self._text))
        rest, self._text = self._text, ""
        return [part for part in (last, Part(rest, "")) if any(part)]

    def _end(self) -> int | None:
        text = self._text
        begin = len(text) - len(text.lstrip())
        at = max(self._from, begin)
        while found := _END.search(text, at):
            if not _NUMBER.fullmatch(text, begin, found.end()):
                return found.start() if found[0] == "\n" else found.end()
            at = found.end()
        self._from = len(text.rstrip(_STOPS + _WIDE_STOPS + _AFTER))
        return None

    def _take(self, end: int) -> Part:
        text = self._text
        sentence = text[:end].strip()
        begin = len(text) - len(text.lstrip()) if sentence else end
        self._text, self._from = text[begin + len(sentence) :], 0
        return Part(text[:begin], sentence)
