"""Reads a request for the rules: what the person said, what tools returned, and what time it is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from moorline_agents.briefing import parted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from moorline_agents.messages import Message
    from moorline_agents.transport import ModelRequest

_NOW = re.compile(r"^Now: (?P<iso>\S+)|\bNow it is (?P<spoken>\w+ \d+ \w+ \d+, \d+:\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a tool."""

    tool: str
    arguments: Mapping[str, Any]
    content: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        """Why the tool refused; None if it did not."""
        error = self.content.get("error")
        return None if error is None else str(error)

    @property
    def code(self) -> str | None:
        """The kind of refusal, if it has one."""
        code = self.content.get("code")
        return code if isinstance(code, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the agent said."""

    text: str


def now_of(request: ModelRequest) -> datetime | None:
    """The local time in the latest briefing that has one, or in the system text; None if there is none.

    It has the form of a line `Now: <ISO time> …`, or of `Now it is Sunday 22 November 2026, 15:44`.
    """
    told = [parted(_content(message))[0] for message in reversed(request.messages)]
    match = next(filter(None, map(_NOW.search, (*told, request.system))), None)
    if match is None:
        return None
    try:
        if match["iso"]:
            return datetime.fromisoformat(match["iso"])
        return datetime.strptime(match["spoken"], "%A %d %B %Y, %H:%M")
    except ValueError:
        return None


def events_of(request: ModelRequest) -> Iterator[str | Result | Answer]:
    """What happened, in order: texts of the person (joined if no answer came in between), results, and answers."""
    calls: dict[str, tuple[str, Mapping[str, Any]]] = {}
    texts: list[str] = []
    for message in request.messages:
        if message["role"] == "user":
            texts.append(_text(message))
            continue
        if texts:
            yield "\n".join(texts)
            texts = []
        if message["role"] == "assistant" and (said := _text(message)):
            yield Answer(text=said)
        for call in message.get("tool_calls") or ():
            calls[call["id"]] = (call["function"]["name"], _object(call["function"]["arguments"]))
        if message["role"] == "tool":
            tool, arguments = calls.get(message.get("tool_call_id", ""), ("", {}))
            yield Result(tool=tool, arguments=arguments, content=_object(_text(message)))
    if texts:
        yield "\n".join(texts)


def last_text(request: ModelRequest) -> str:
    """What the person said last; "" if nothing."""
    return next((event for event in reversed(list(events_of(request))) if isinstance(event, str)), "")


def latest_results(request: ModelRequest) -> list[Result]:
    """The results of tools since the last text; empty if the person spoke last."""
    results: list[Result] = []
    waiting = 0
    for message in reversed(request.messages):
        if message["role"] != "tool":
            break
        waiting += 1
    if waiting:
        results = [event for event in events_of(request) if isinstance(event, Result)][-waiting:]
    return results


def has_files(message: Message) -> bool:
    """Whether the message has parts that are no text."""
    content: object = message.get("content")
    return isinstance(content, list) and any(part.get("type") != "text" for part in content)


def _text(message: Message) -> str:
    return parted(_content(message))[1]


def _content(message: Message) -> str:
    content: object = message.get("content")
    if isinstance(content, list):  # other clients send a list of parts
        return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
