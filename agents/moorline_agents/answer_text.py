"""The text of an answer as the person may see it, put together from its pieces."""

from __future__ import annotations

from moorline_agents.model_errors import ModelError
from moorline_agents.plain_json import whole_text

LONGEST_TEXT = 262_144
"""Characters that the text of one answer may have."""

_OPEN, _CLOSE = "<think>", "</think>"


class AnswerText:
    """Takes the pieces of a text and leaves out what stands in `<think>…</think>`, wherever the pieces are split.

    Some servers send only the closing tag: then all before it was thinking. A tag in backquotes is text. With
    `thinks_first` the server is known to be such a one, and no text may be shown before the model has thought.
    """

    def __init__(self, *, thinks_first: bool = False) -> None:
        self.thinks_first = thinks_first
        """Whether the server is known to send only the closing tag."""
        self._holds_back = thinks_first
        self._pieces: list[str] = []
        self._length = 0
        self._held = ""
        """What cannot be told yet: the beginning of a tag, or half a character."""
        self._thought: list[str] | None = None
        """What the model has been thinking since a tag was opened; None outside the tags."""
        self._thought_length = 0
        self._has_thought = False

    def __str__(self) -> str:
        return "".join(self._pieces)

    def add(self, piece: str) -> str:
        """Takes the next piece and returns what more may be shown. Raises `ModelError` for a text without an end."""
        new = self._add(piece)
        if not self._holds_back:
            return new
        self._holds_back = not self._has_thought or self._thought is not None
        return "" if self._holds_back else str(self)

    def end(self) -> str:
        """Returns what was held back, when no more comes. Thinking that was never closed is text if text came before
        it: then the tag was none."""
        rest = whole_text(self._held)
        if self._thought is not None:
            rest = _OPEN + "".join(self._thought) + rest if str(self).strip() else ""
        self._held, self._thought = "", None
        new = self._show(rest)
        return str(self) if self._holds_back else new

    def _add(self, piece: str) -> str:
        text, half = _without_half(self._held + piece)
        text, new = whole_text(text), ""
        while found := self._tag(text):
            at, tag = found
            before, text = text[:at], text[at + len(tag) :]
            if tag == _OPEN:
                new += self._show(before)
            elif self._thought is None:
                self._pieces, self._length, new, self.thinks_first = [], 0, "", True
            self._thought, self._thought_length = ([] if tag == _OPEN else None), 0
            self._has_thought = True
        kept = _beginning_of_tag(text)
        text, self._held = text[: len(text) - kept], text[len(text) - kept :] + half
        return new + (self._show(text) if self._thought is None else self._think(text))

    def _show(self, text: str) -> str:
        if self._has_thought and not self._length:
            text = text.lstrip()  # the space between thinking and text
        if text:
            self._pieces.append(text)
            self._length += len(text)
        if self._length > LONGEST_TEXT:
            raise ModelError(
                f"The model's answer is longer than {LONGEST_TEXT} characters and was stopped. "
                "Ask for less at once, or limit the length of answers on the model server.",
                retryable=False,
                about_request=True,
            )
        return text

    def _think(self, text: str) -> str:
        assert self._thought is not None  # noqa: S101 - it thinks
        self._thought.append(text)
        self._thought_length += len(text)
        if self._thought_length > LONGEST_TEXT:
            self._thought.clear()  # too long to be anything but thinking
        return ""

    def _tag(self, text: str) -> tuple[int, str] | None:
        """Where the next tag stands that means something, and which. Only the first tag may be a closing one alone."""
        thinking = self._thought is not None
        tags = (_CLOSE,) if thinking else (_OPEN,) if self._has_thought else (_OPEN, _CLOSE)
        places = []
        for tag in tags:
            at = text.find(tag)
            while at >= 0 and not thinking and (text[:at] or "".join(self._pieces[-1:])).endswith("`"):
                at = text.find(tag, at + 1)
            if at >= 0:
                places.append((at, tag))
        return min(places, default=None)


def _without_half(text: str) -> tuple[str, str]:
    """The text, and the first half of a character at its end."""
    return (text[:-1], text[-1]) if text and "\ud800" <= text[-1] <= "\udbff" else (text, "")


def _beginning_of_tag(text: str) -> int:
    """How many characters at the end of the text may be the beginning of a tag."""
    at = text.rfind("<", -len(_CLOSE) + 1)
    end = text[at:] if at >= 0 else ""
    return len(end) if _OPEN.startswith(end) or _CLOSE.startswith(end) else 0
