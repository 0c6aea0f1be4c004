"""The window: what a model is shown of a history, in a form that every chat-completions server takes.

It is bounded in the number of messages and in size. The message that is being answered is always in it, every call in
it has its result right behind it, and nothing else is a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from moorline_agents.files import with_files, without_files
from moorline_agents.history import being_answered, unanswered
from moorline_agents.messages import Message

HISTORY_USER_MESSAGES = 40
"""How many of the person's messages before the one that is being answered a model is shown, with the answers and calls
that followed them; the whole conversation is in `conversation_turns`."""

HISTORY_CHARS = 250_000
"""How many characters of texts and arguments a model is shown, unless a setting says otherwise: as many as the longest
message has, with as long a one before it, and room to grow."""

CHARS_OF_A_TOKEN = 3
"""Characters that a token stands for, rather too few."""

SHORTEST = 256
"""Characters below which no text is shortened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The end of a history, ready to be shown."""

    messages: Sequence[Message]
    size: int
    """Characters of its texts and of the arguments of its calls."""
    source: Sequence[Message]
    """What it would be if size did not matter."""

    @property
    def cut(self) -> bool:
        """Whether anything is missing from it for its size, so that the history should be cut, too."""
        return self.messages is not self.source

    def shorter(self, limit: int | None) -> Window | None:
        """At most half of it, and at most what a model that takes `limit` tokens may have room for; at last with its
        files in words. None if it cannot be any shorter."""
        room = self.size // 2 if limit is None else min(self.size // 2, limit * CHARS_OF_A_TOKEN)
        other = _cut(self.source, room, room)
        if other.size < self.size:
            return other
        told = [without_files(message) for message in self.messages] if with_files(self.messages) else None
        return None if told is None else Window(messages=told, size=_size(told), source=self.source)


def window(history: Sequence[Message], room: int = HISTORY_CHARS) -> Window:
    """The message that is being answered and the person's last `HISTORY_USER_MESSAGES` messages before it, with all
    that followed them.

    If they have more than `room` characters, only half as many are left, so that a history which is cut likewise grows
    for a while before it has to be cut again. Older messages go first. If what belongs to the message being answered is
    too large by itself, its texts are shortened, and at last the oldest of its calls left out.
    """
    begin = being_answered(history)
    before = [position for position, message in enumerate(history[:begin]) if message["role"] == "user"]
    messages = paired(history[before[-HISTORY_USER_MESSAGES:][0] if before else begin :])
    size = _size(messages)
    return Window(messages=messages, size=size, source=messages) if size <= room else _cut(messages, room, room // 2)


def paired(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with the result of each call right behind it, whatever was between them. An open call is closed, and
    a result that belongs to no call is dropped."""
    if _is_paired(messages):
        return messages
    whole: list[Message] = []
    for position, message in enumerate(messages):
        if message["role"] == "tool":
            continue
        whole.append(message)
        if calls := message.get("tool_calls"):
            results = _results(messages[position + 1 :], {call["id"] for call in calls})
            whole.extend(results.get(call["id"]) or unanswered(call) for call in calls)
    return whole


def clipped(text: str, longest: int) -> str:
    """The text, or if it is longer, its beginning and its end, with a note of how much is missing between them."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    missing = len(text) - longest
    return f"{text[: longest - tail]} [… {missing:,} characters left out …] {text[len(text) - tail :]}"


def _is_paired(messages: Sequence[Message]) -> bool:
    """Whether nothing is wrong with them, which is quickly seen."""
    using = [(at, said) for at, said in enumerate(messages) if "tool_calls" in said or said["role"] == "tool"]
    wanted = [
        (place, call["id"])
        for at, message in using
        for place, call in enumerate(message.get("tool_calls") or (), start=at + 1)
    ]
    return wanted == [(at, message.get("tool_call_id")) for at, message in using if message["role"] == "tool"]


def _results(following: Sequence[Message], ids: set[str]) -> Mapping[str, Message]:
    """The first result of each of these calls. Servers may use an ID again: then the later call's results begin."""
    results: dict[str, Message] = {}
    for message in following:
        if len(results) == len(ids) or any(call["id"] in ids for call in message.get("tool_calls") or ()):
            break
        if message["role"] == "tool" and message.get("tool_call_id") in ids:
            results.setdefault(message["tool_call_id"], message)
    return results


def _size(messages: Sequence[Message]) -> int:
    texts = "".join([message["content"] or "" for message in messages])
    calls = chain.from_iterable([message["tool_calls"] or () for message in messages if "tool_calls" in message])
    return len(texts) + sum([len(call["function"]["arguments"]) for call in calls])


def _cut(messages: Sequence[Message], most: int, room: int) -> Window:
    """The message that is being answered, with at most `most` characters, and of what was said before it as much as
    `room` leaves."""
    begin = being_answered(messages)
    kept = _fitted(messages[begin:], most)
    size = _size(kept)
    for exchange in _exchanges(messages[:begin]):
        more = _size(exchange)
        if size + more > room:
            break
        kept, size = [*exchange, *kept], size + more
    return Window(messages=kept, size=size, source=messages)


def _exchanges(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Messages of the person in a row with what followed them, the latest first; the first message is theirs."""
    while messages:
        begin = being_answered(messages)
        yield messages[begin:]
        messages = messages[:begin]


def _fitted(present: Sequence[Message], most: int) -> list[Message]:
    """What belongs to the message being answered, in at most so many characters if that is possible at all."""
    whole, longest = list(present), max(most, 2 * SHORTEST)
    while _size(whole) > most and longest > SHORTEST:
        longest = max(longest // 2, SHORTEST)
        whole = [_clipped(message, longest) for message in present]
    kept = whole
    answers = [position for position, message in enumerate(whole) if message["role"] == "assistant"]
    for position in answers[1:]:
        if _size(kept) <= most:
            break
        kept = [*whole[: answers[0]], *whole[position:]]
    return kept


def _clipped(message: Message, longest: int) -> Message:
    """The message with shorter texts. Arguments have to be JSON: those that are too long are replaced."""
    shorter: Message = {**message, "content": message["content"] and clipped(message["content"], longest)}
    if calls := message.get("tool_calls"):
        shorter["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _arguments(call["function"]["arguments"], longest)}}
            for call in calls
        ]
    return shorter


def _arguments(arguments: str, longest: int) -> str:
    if len(arguments) <= longest:
        return arguments
    return json.dumps({"left_out": f"{len(arguments):,} characters"})
