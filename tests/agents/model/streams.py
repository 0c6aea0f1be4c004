"""Answers that are known, and the many ways in which servers stream them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from moorline_agents.completion_stream import AnswerStream

TOOLS = (
    *("find", "find_slots", "find_slots_of_week", "book", "book_room", "cancel", "get_weather", "get_time", "get"),
    *("hand_over", "end_session", "a", "aa", "ab", "search-web", "x" * 64),
)
WORDS = (
    *("Certainly", "the", "day", "after", "tomorrow", "12:30", "naïve", "größer"),
    *("здравствуйте", "日本語", "👩‍🚀", "🎉", '"quoted"', "{brace}", "[list]", "a<b"),
    *("<thin", "</b>", "\\", "\n", "\u2028", "}{", "`<think>`"),
)
Numbering = Literal["all", "none", "zero"]
Naming = Literal["first", "each", "changing", "none", "empty", "same"]


@dataclass(frozen=True)
class Answer:
    """What a model says: its text, the calls as (name, arguments), its thinking, and a signature of its calls."""

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    thinking: str = ""
    signed: bool = False


@dataclass
class Whole:
    """What was put together again."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    extra: dict[str, Any]
    signatures: list[Any] = field(default_factory=list)


def known_answers(count: int, seed: int = 1) -> list[Answer]:
    """As many different answers, the same ones each time."""
    random = Random(seed)  # noqa: S311 - a test, no secret
    answers: list[Answer] = []
    while len(answers) < count:
        calls = tuple((random.choice(TOOLS), _arguments(random)) for _ in range(random.choice((0, 1, 1, 2, 2, 3, 5))))
        if random.random() < 0.2:
            calls += calls[-1:]
        text = _sentence(random, random.choice((0, 3, 12))) if calls else _sentence(random, random.randint(1, 30))
        thinking = _sentence(random, 5).replace("<", "") if random.random() < 0.4 else ""
        answers.append(Answer(text, calls, thinking, signed=bool(calls) and random.random() < 0.3))
    return answers


def streamed(answer: Answer, random: Random) -> list[dict[str, Any]]:
    """The chunks of the answer as one server or another may send them, split at random places."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": random.choice((None, "")), "reasoning_content": None}
    ]
    deltas += _told(answer, random)
    if answer.calls:
        deltas += _Caller(answer, random).deltas()
    nothing: tuple[dict[str, Any], ...] = ({}, {"content": None}, {"tool_calls": None})
    for _ in range(random.randint(0, 2)):
        deltas.insert(random.randint(1, len(deltas)), random.choice(nothing))
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    reason = random.choice(("stop", "tool_calls", "function_call") if answer.calls else ("stop",))
    if random.random() < 0.8:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if random.random() < 0.3:
        chunks.insert(0, {"choices": []})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    return json.loads(json.dumps(chunks))  # type: ignore[no-any-return]


def reassembled(chunks: Sequence[dict[str, Any]], tools: Sequence[str] = TOOLS) -> Whole:
    """What `AnswerStream` makes of the chunks. Raises `ModelError`."""
    stream = AnswerStream(frozenset(tools))
    shown = [stream.add(chunk) for chunk in chunks]
    shown.append(stream.end())
    message = stream.finish(ended=True).message
    calls = message.get("tool_calls", [])
    text = message["content"] or ""
    assert "".join(shown) == text
    assert not any("refused" in call for call in calls)
    assert len({call["id"] for call in calls}) == len(calls)
    return Whole(
        text,
        [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls],
        dict(message.get("extra", {})),
        [call.get("extra", {}).get("extra_content") for call in calls],
    )


def _told(answer: Answer, random: Random) -> Iterator[dict[str, Any]]:
    """Deltas of thinking and text."""
    text, thinking = _halved(answer.text), answer.thinking
    way = random.choice(("field", "tags", "parts"))
    if thinking and way == "field":
        yield from ({"reasoning_content": piece} for piece in _pieces(thinking, random))
    if thinking and way == "parts":
        for piece in _pieces(thinking, random):
            yield {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
    if thinking and way == "tags":
        text = f"<think>{thinking}</think>{'' if random.random() < 0.5 else chr(10)}{text.lstrip()}"
    as_parts = way == "parts" and random.random() < 0.7
    for piece in _pieces(text, random):
        yield {"content": [{"type": "text", "text": piece}] if as_parts else piece}


class _Caller:
    """Streams an answer's calls in one way of sending them, which says enough to tell them apart."""

    def __init__(self, answer: Answer, random: Random) -> None:
        self._answer = answer
        self._random = random
        self._numbering: Numbering = random.choice(("all", "all", "none", "zero"))
        told_apart: tuple[Naming, ...] = ("first", "first", "each", "changing", "none", "empty")
        self._naming: Naming = random.choice((*told_apart, "same") if self._numbering == "all" else told_apart)
        self._as_objects = random.random() < 0.15
        self._ids = random.sample(range(10_000), len(answer.calls))

    def deltas(self) -> list[dict[str, Any]]:
        calls = [list(self._parts(number)) for number in range(len(self._answer.calls))]
        how = self._random.random()
        if how < 0.2 and len({len(parts) for parts in calls}) == 1:
            return [{"tool_calls": list(together)} for together in zip(*calls, strict=True)]
        if how < 0.6 and self._numbering == "all":
            return [{"tool_calls": [part]} for part in self._interleaved(calls)]
        return [{"tool_calls": [part]} for parts in calls for part in parts]

    def _interleaved(self, calls: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        yield from (parts.pop(0) for parts in calls)  # calls begin in their order
        while left := [parts for parts in calls if parts]:
            yield self._random.choice(left).pop(0)

    def _parts(self, number: int) -> Iterator[dict[str, Any]]:
        name, arguments = self._answer.calls[number]
        told: list[dict[str, Any]] = []
        pieces: list[Any] = [arguments] if self._as_objects else list(_pieces(json.dumps(arguments), self._random))
        numbered = self._numbering == "all"
        how = self._random.random()
        if how < 0.15 and numbered and len(pieces) > 1:
            told = [{"arguments": pieces[0]}, {"name": name}, *({"arguments": piece} for piece in pieces[1:])]
        elif how < 0.35 and (numbered or self._naming in ("first", "each")):
            cut = self._random.randint(1, len(name))
            told = [{"name": name[:cut], "arguments": ""}, *([{"name": name[cut:]}] if name[cut:] else [])]
            told += ({"arguments": piece} for piece in pieces)
            if {name[:cut], name[cut:]} <= set(TOOLS):  # nobody could tell that from two calls
                told = [{"name": name, "arguments": ""}, *({"arguments": piece} for piece in pieces)]
        elif how < 0.5 and self._naming in ("first", "each") and not self._as_objects:
            told = [{"name": name, "arguments": piece} for piece in pieces]
        else:
            first = self._random.choice((None, "", pieces[0]))
            rest = pieces[1:] if first else pieces
            told = [{"name": name, "arguments": first}, *({"arguments": piece} for piece in rest)]
        for position, function in enumerate(told):
            part: dict[str, Any] = {"function": function}
            if position == 0:
                part["type"] = "function"
            if self._numbering != "none":
                part["index"] = number if self._numbering == "all" else 0
            if (call_id := self._id(number, position)) is not None:
                part["id"] = call_id
            if position == 0 and self._answer.signed and number == 0:
                part["extra_content"] = {"google": {"thought_signature": "c2ln"}}
            yield part
        if numbered and self._random.random() < 0.2:
            yield {"index": number, "function": None}

    def _id(self, number: int, position: int) -> str | None:
        own = f"call_{self._ids[number]}"
        match self._naming:
            case "first":
                return own if position == 0 else None
            case "each":
                return own
            case "changing":
                return f"{own}_{position}"
            case "same":
                return "call_0"
            case "empty":
                return ""
            case "none":
                return None


def _arguments(random: Random) -> dict[str, Any]:
    values: tuple[Any, ...] = (
        *(_sentence(random, 3), random.randint(-9, 10**6), 1.5, True, None, [], {}, ["a", {"b": "}"}]),
        *({"deep": [{"er": _sentence(random, 2)}]}, '{"json": "in text"}', "😀"),
    )
    return {
        random.choice(("day", "text", "größe", "a b", "n")): random.choice(values) for _ in range(random.randint(1, 4))
    }


def _sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) for _ in range(words)).strip()


def _halved(text: str) -> str:
    """The text as some servers have it: each character outside the basic plane as two halves."""
    return text.encode("utf-16-le").decode("utf-16-le") if text.isascii() else _surrogates(text)


def _surrogates(text: str) -> str:
    units = text.encode("utf-16-le")
    return "".join(chr(int.from_bytes(units[at : at + 2], "little")) for at in range(0, len(units), 2))


def _pieces(text: str, random: Random) -> Iterator[str]:
    longest = random.choice((1, 3, 8, 40, 10_000))
    while text:
        size = random.randint(1, longest)
        yield text[:size]
        text = text[size:]
