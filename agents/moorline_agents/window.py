"""The window: what a model is shown of a history, in a form that every chat-completions server takes.

It is bounded in tokens, by estimate. The message that is being answered is always in it, every call in it has its
result right behind it, and nothing else is a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moorline_agents import files
from moorline_agents.files import with_files, without_files
from moorline_agents.history import being_answered, unanswered
from moorline_agents.messages import Message
from moorline_agents.tokens import CHARACTERS, tokens_of

PROMPT_TOKENS = 60_000
"""Tokens that a request may have, unless a setting says otherwise: instructions, tools and window."""

MOST_MESSAGES = 160
"""Messages of all kinds with which a history is long enough to be cut to about `LEAST_MESSAGES`."""

LEAST_MESSAGES = 80

SHORTEST = 256
"""Characters below which no text is shortened, as long as something can be left out instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The end of a history, ready to be shown."""

    messages: Sequence[Message]
    size: int
    """Its tokens."""
    source: Sequence[Message]
    """What it would be if size did not matter."""

    def shorter(self, limit: int | None) -> Window | None:
        """At most half of it, and at most what a model that takes `limit` tokens surely has room for; at last with its
        files in words. None if it cannot be any shorter."""
        room = self.size // 2 if limit is None else min(self.size // 2, limit * 3 // 4)
        other = _cut(self.source, room, room)
        if other.size < self.size:
            return other
        told = [without_files(message) for message in self.messages] if with_files(self.messages) else None
        return None if told is None else Window(messages=told, size=tokens_of(told), source=self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgrown:
    """A history that has become too long, in two parts."""

    fallen: Sequence[Message]
    """Empty if only files of it had to go."""
    kept: Sequence[Message]
    """The newer part, which begins with a message of the person."""


def window(history: Sequence[Message], room: int) -> Window:
    """The message that is being answered and all before it, from the first of the person's messages on.

    If they have more than `room` tokens, only half as many are left. Older messages go first. If what belongs to the
    message being answered is too large by itself, files of it are only named, its texts shortened, and at last the
    oldest of its calls, or of what was said at once, left out.
    """
    begin = next((at for at, message in enumerate(history) if message["role"] == "user"), len(history))
    messages = paired(history[begin:])
    size = tokens_of(messages)
    return Window(messages=messages, size=size, source=messages) if size <= room else _cut(messages, room, room // 2)


def outgrown(history: Sequence[Message], room: int, *, most: int | None = None) -> Outgrown | None:
    """The history, before a message of the person joins it, in two parts if it has come near the bounds; None while it
    has not, or cannot be shorter.

    It is cut to about half of what it may be, so that this happens rarely and the window begins at the same message for
    many turns. With `most`, it is cut to as many tokens, because a server had no room for more.
    """
    if len(history) < MOST_MESSAGES and most is None and tokens_of(history) <= room * 3 // 4:
        return None
    least = room * 3 // 8 if most is None else min(most, room * 3 // 8)
    kept: list[Message] = []
    size = 0
    for exchange in _exchanges(history):
        more = tokens_of(exchange)
        if kept and (size + more > least or len(kept) >= LEAST_MESSAGES or len(kept) + len(exchange) > MOST_MESSAGES):
            break
        kept, size = [*exchange, *kept], size + more
    fallen = history[: len(history) - len(kept)]
    if size <= least:
        return Outgrown(fallen=fallen, kept=kept) if fallen else None
    told = [without_files(message) for message in kept]  # the last exchange, alone too long
    shorter = _fitted(told, least)
    if tokens_of(shorter) < tokens_of(told):
        return Outgrown(fallen=history, kept=shorter)
    return Outgrown(fallen=fallen, kept=told) if fallen or with_files(kept) else None


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
    if not using:
        return True
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


def _cut(messages: Sequence[Message], most: int, room: int) -> Window:
    """The message that is being answered, with at most `most` tokens, and of what was said before it as much as
    `room` leaves."""
    begin = being_answered(messages)
    kept = _fitted(messages[begin:], most)
    size = tokens_of(kept)
    for exchange in _exchanges(messages[:begin]):
        more = tokens_of(exchange)
        if size + more > room:
            break
        kept, size = [*exchange, *kept], size + more
    return Window(messages=kept, size=size, source=messages)


def _exchanges(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Messages of the person in a row with what followed them, the latest first."""
    while messages and (begin := being_answered(messages)) < len(messages):
        yield messages[begin:]
        messages = messages[:begin]


def _fitted(present: Sequence[Message], most: int) -> list[Message]:
    """What belongs to the message being answered, in at most so many tokens if that is possible at all: with shorter
    texts, or else without its oldest answers, or with even shorter texts, and at last without calls of its last answer
    and without some of what was said at once. Its files come first, but leave half to its texts."""
    if with_files(present):
        of_files = sum(files.tokens_of(note) for message in present for note in message.get("files", ()))
        present = files.fitting(present, most - min(tokens_of(present) - of_files, most // 2))
    whole = _shortened(present, most, SHORTEST)
    begin, *later = [at for at, message in enumerate(whole) if message["role"] == "assistant"] or [len(whole)]
    said, kept = whole[:begin], whole
    for at in later:
        if tokens_of(kept) <= most:
            break
        kept = [*said, *whole[at:]]
    kept = _shortened(kept, most, SHORTEST // 8)
    while tokens_of(kept) > most and (fewer := _fewer(kept, begin)) is not None:
        kept, begin = fewer
    return kept


def _shortened(present: Sequence[Message], most: int, shortest: int) -> list[Message]:
    """The messages with texts that are short enough, but not below `shortest`."""
    whole, longest = list(present), max(most * CHARACTERS, 2 * shortest)
    while tokens_of(whole) > most and longest > shortest:
        longest = max(longest // 2, shortest)
        whole = [_clipped(message, longest) for message in present]
    return whole


def _fewer(present: list[Message], begin: int) -> tuple[list[Message], int] | None:
    """The same without the first call of the answer that begins there, or else without the first of what was said at
    once, whose briefing stays; and where the answer begins then. None if there is only one of each."""
    calls = present[begin].get("tool_calls", ()) if begin < len(present) else ()
    if len(calls) > 1:
        results = [message for message in present[begin + 1 :] if message.get("tool_call_id") != calls[0]["id"]]
        return [*present[:begin], {**present[begin], "tool_calls": [*calls[1:]]}, *results], begin
    if begin > 1:
        first, second, *others = present
        told = "\n\n".join(each["briefing"] for each in (first, second) if "briefing" in each)
        return [{**second, "briefing": told} if told else second, *others], begin - 1
    return None


def _clipped(message: Message, longest: int) -> Message:
    """The message with shorter texts. Arguments have to be JSON: those that are too long are replaced."""
    shorter: Message = {**message, "content": message["content"] and clipped(message["content"], longest)}
    if told := message.get("briefing"):
        shorter["briefing"] = clipped(told, longest)
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
