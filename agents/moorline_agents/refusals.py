"""What a model server says when it refuses a request, as much of it as may be told.

An error's text is logged, so it must quote nothing of the conversation, and no key.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LONGEST = 300  # characters that are told
_SHARED = 12  # characters in a row that are taken for a quotation
_MARK = re.compile(r"[\w.\[\]-]{1,80}")  # a code, a type, or the place of a parameter
_SECRET = re.compile(r"\b(sk|key|token|bearer)\b\W*[\w-]{6,}", re.IGNORECASE)


def told(body: object, messages: Sequence[Mapping[str, Any]]) -> str:
    """The server's own names for what is wrong, and its words if they quote none of `messages`; "" if there is nothing
    to tell."""
    error = _error_of(body)
    marks = [error.get(name) for name in ("code", "status", "type", "param")] if isinstance(error, Mapping) else []
    named = dict.fromkeys(mark for mark in marks if isinstance(mark, str) and _MARK.fullmatch(mark))
    words = _plain(_words_of(error))
    shown = ", ".join(mark for mark in named if not _quotes(mark, messages))
    if words and not _SECRET.search(words) and not _quotes(words, messages):
        shown = f"{shown}: {words}" if shown else words
    return shown


def _error_of(body: object) -> object:
    """The error itself, from inside of what servers wrap it in."""
    while isinstance(body, list | Mapping):
        inner = body[0] if isinstance(body, list) and body else None
        if isinstance(body, Mapping):
            inner = next(
                (body[name] for name in ("error", "detail") if isinstance(body.get(name), list | Mapping)), None
            )
        if not isinstance(inner, list | Mapping):
            break
        body = inner
    return body


def _words_of(error: object) -> str:
    if isinstance(error, str):
        return "" if error.lstrip().startswith("<") else error
    if not isinstance(error, Mapping):
        return ""
    said = next((error[name] for name in ("message", "msg", "detail", "error") if error.get(name)), "")
    if isinstance(said, str):
        return said
    inner = _error_of(said)
    where = inner.get("loc") if isinstance(inner, Mapping) else None
    place = ".".join(map(str, where)) if isinstance(where, list) else ""
    what = inner.get("msg", inner.get("type", "")) if isinstance(inner, Mapping) else ""
    return f"{place} {what}".strip()


def _plain(text: str) -> str:
    """One line of printable characters."""
    shown = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in text[: 4 * _LONGEST])
    line = " ".join(shown.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _quotes(words: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    if "\\u" in words:  # what it escapes cannot be compared
        return True
    texts = [_plain_space(text) for text in _texts_of(messages)]
    if any(text and len(text) < _SHARED and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", words) for text in texts):
        return True
    told = "\n".join(text for text in texts if len(text) >= _SHARED)
    return any(words[at : at + _SHARED] in told for at in range(len(words) - _SHARED + 1))


def _plain_space(text: str) -> str:
    return " ".join(text.split())


def _texts_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, str):
            yield content
        else:  # of what a file is in it, the beginning is enough to be recognised
            yield from (part["text"] if "text" in part else str(part)[:_LONGEST] for part in content)
        for call in message.get("tool_calls") or ():
            yield call["function"]["arguments"]
