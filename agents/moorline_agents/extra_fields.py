"""Fields of an answer that OpenAI's schema does not have, such as a signature or `reasoning_content`.

Some servers refuse a history without them, so they are kept with the message and sent back, as they came, to the server
and model that sent them. They are bounded, and no person sees them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from moorline_agents.json_limits import objection
from moorline_agents.messages import Message
from moorline_agents.plain_json import whole_text

REASONING = "reasoning_content"
"""The field whose text need not be whole, and that servers want back only within the turn."""

LONGEST_EXTRA = 32_768
"""Bytes that all such fields of one message may have, as JSON."""

_MERGED = 4  # levels of objects that are merged
_TELLING = ("reason", "think")  # in the name of a field that tells a text piece by piece


class ExtraFields:
    """Takes the fields of an answer's deltas, or of one of its calls, and puts them together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._lengths: Counter[str] = Counter()

    def add(self, fields: Mapping[str, Any]) -> None:
        """Takes the fields of one delta. Pieces of texts and lists join, objects merge, else the last value counts."""
        for name, value in fields.items():
            if value is None:
                continue
            if isinstance(value, str):
                if self._lengths[name] <= LONGEST_EXTRA:
                    self._texts.setdefault(name, []).append(value)
                    self._lengths[name] += len(value)
            elif name not in self._others or len(self._others) <= LONGEST_EXTRA:
                self._others[name] = _merged(self._others.get(name), value, depth=_MERGED)

    def whole(self) -> dict[str, Any]:
        """The fields, without those that are empty or no JSON."""
        texts = {name: whole_text(_told(name, pieces)) for name, pieces in self._texts.items()}
        fields = {**self._others, **texts}
        return {
            name: value
            for name, value in fields.items()
            if value not in ("", [], {}) and objection({name: value}) is None
        }


def bound(groups: Sequence[dict[str, Any]]) -> None:
    """Takes fields out of the groups, those of one message, until the rest is short enough: the largest go first.
    Reasoning is cut instead."""
    left = LONGEST_EXTRA
    sized = [(_size(name, value), at, name) for at, group in enumerate(groups) for name, value in group.items()]
    for size, at, name in sorted(sized):
        value = groups[at][name]
        if size > left and name == REASONING and isinstance(value, str):
            groups[at][name] = _beginning(value, left - _size(name, ""))
            left = 0
        elif size > left:
            del groups[at][name]
        else:
            left -= size


def signed(message: Message, origin: str) -> Message:
    """The message with the name of the server and model that its extra fields belong to, if it has any."""
    extra = message.get("extra") or any(call.get("extra") for call in message.get("tool_calls", ()))
    return {**message, "origin": origin} if extra else message


def _merged(old: Any, new: Any, *, depth: int) -> Any:
    if depth and isinstance(old, list) and isinstance(new, list):
        return [*old, *new] if len(old) < LONGEST_EXTRA else old
    if depth and isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{name: _merged(old.get(name), value, depth=depth - 1) for name, value in new.items()}}
    return new


def _told(name: str, pieces: Sequence[str]) -> str:
    """Their text, or the one that each delta repeated."""
    repeated = len(set(pieces)) == 1 and not any(word in name for word in _TELLING)
    return pieces[0] if repeated else "".join(pieces)


def _size(name: str, value: Any) -> int:
    """Bytes that a field takes in JSON."""
    return len(json.dumps({name: value}, ensure_ascii=False).encode())


def _beginning(text: str, room: int) -> str:
    """As much of the text as takes no more than `room` bytes in JSON."""
    text = text[: max(room, 0)]
    while (size := _size("", text) - _size("", "")) > room:
        text = text[: len(text) * room // size]
    return text
