"""What a model server takes: requests in the form that it accepts, as far as its refusals have shown which that is.

Everything is sent as OpenAI's schema has it, until a refusal names what the server does not take. Then it is left out,
or written otherwise, in this request and all that follow.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from moorline_agents.calls import arguments_of, name_of
from moorline_agents.extra_fields import REASONING
from moorline_agents.messages import Message

_DEMANDED = re.compile(
    rf"missing\W{{0,3}}{REASONING}"
    rf"|{REASONING}\b.{{0,60}}\b(must be|is|are) (passed|provided|included|present|required|sent)",
    re.IGNORECASE | re.DOTALL,
)
_TOOL_CHOICE = re.compile(r"tool[ _]?choice|forced? (a )?(tool|function)", re.IGNORECASE)
_CONTENT = re.compile(r"\bcontent\b", re.IGNORECASE)
_PARALLEL = re.compile(
    r"(single|one|parallel|multiple)\b.{0,30}\b(tool|function)[- _]?calls?|"
    r"(tool|function)[- _]?calls?\b.{0,40}\b(at once|at a time|in parallel)",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"\b(system|developer)\W{0,3} (role|message|prompt|instruction)s?\b|\brole\b.{0,60}\b(system|developer)\b"
    r"|\b(system|developer)\b.{0,60}\brole\b|conversation roles must alternate",
    re.IGNORECASE | re.DOTALL,
)

Body = dict[str, Any]
_Wired = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is asked."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: object = None


class Dialect:
    """What one server takes for one model. `origin` names the two in messages that came from them."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._without: set[str] = set()
        """Parameters and fields that it does not take."""
        self._choices: set[str] = set()
        """Kinds of `tool_choice` that it does not take: `none`, `forced`."""
        self._contents = iter(("", None))
        self._no_content: Mapping[str, Any] = {"content": None}
        """How a message without content is written."""
        self._one_call = False
        self._no_system = False
        self._all_reasoning = False
        """Whether it wants its reasoning back in later turns, too."""

    def body(self, request: Request) -> Body:
        """The body of a request, but for its being streamed, in the form that the server takes."""
        body: Body = {"model": request.model, "messages": self._wired(request.messages)}
        if "stream_options" not in self._without:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = "auto" if _kind(request.tool_choice) in self._choices else request.tool_choice
        return body

    def learn(self, refusal: str, body: Body) -> bool:
        """Whether `refusal`, the server's words about a request with this body, names something that the next request
        will do without."""
        messages: list[_Wired] = body["messages"]
        return (
            self._learn_stream_options(refusal, body)
            or self._learn_choice(refusal, body)
            or self._learn_reasoning(refusal, messages)
            or self._learn_extra(refusal, messages)
            or self._learn_content(refusal, messages)
            or self._learn_calls(refusal, messages)
            or self._learn_role(refusal, messages)
        )

    def _learn_stream_options(self, refusal: str, body: Body) -> bool:
        if "stream_options" not in body or not re.search("stream_options|include_usage", refusal):
            return False
        self._without.add("stream_options")
        return True

    def _learn_choice(self, refusal: str, body: Body) -> bool:
        kind = _kind(body.get("tool_choice"))
        if kind is None or not _TOOL_CHOICE.search(refusal):
            return False
        self._choices.add(kind)
        return True

    def _learn_reasoning(self, refusal: str, messages: Sequence[_Wired]) -> bool:
        answers = (message for message in messages if message["role"] == "assistant")
        lacking = any(REASONING not in message for message in answers)
        if self._all_reasoning or not lacking or not _DEMANDED.search(refusal):
            return False
        self._all_reasoning = True
        return True

    def _learn_extra(self, refusal: str, messages: Sequence[_Wired]) -> bool:
        sent = set(chain.from_iterable(message.keys() for message in messages))
        sent.update(chain.from_iterable(call.keys() for message in messages for call in message.get("tool_calls", ())))
        named = {name for name in sent - _SCHEMA if re.search(rf"\b{re.escape(name)}\b", refusal)}
        if _DEMANDED.search(refusal):
            named.discard(REASONING)
        if not named:
            return False
        self._without |= named
        return True

    def _learn_content(self, refusal: str, messages: Sequence[_Wired]) -> bool:
        lacking = any(not message.get("content") for message in messages)
        if not lacking or not _CONTENT.search(refusal):
            return False
        for content in self._contents:
            self._no_content = {} if content is None else {"content": content}
            return True
        return False

    def _learn_calls(self, refusal: str, messages: Sequence[_Wired]) -> bool:
        several = any(len(message.get("tool_calls", ())) > 1 for message in messages)
        if self._one_call or not several or not _PARALLEL.search(refusal):
            return False
        self._one_call = True
        return True

    def _learn_role(self, refusal: str, messages: Sequence[_Wired]) -> bool:
        if self._no_system or messages[0]["role"] != "system" or not _ROLE.search(refusal):
            return False
        self._no_system = True
        return True

    def _wired(self, messages: Sequence[Message]) -> list[_Wired]:
        turn = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)
        wired: list[_Wired] = []
        known: dict[str, str] = {}  # IDs by which the server knows the calls that are being answered
        for at, message in enumerate(messages):
            if message["role"] == "assistant":
                written, known = self._answer(message, in_turn=at > turn)
            else:
                written = {name: value for name, value in message.items() if name not in ("extra", "origin")}
                call_id = message.get("tool_call_id", "")
                if call_id in known:
                    written["tool_call_id"] = known[call_id]
            wired.append(written)
        if self._one_call:
            wired = list(_one_by_one(wired, self._no_content))
        return _without_system(wired) if self._no_system else wired

    def _answer(self, message: Message, *, in_turn: bool) -> tuple[_Wired, dict[str, str]]:
        own = message.get("origin") == self.origin
        written: _Wired = {name: value for name, value in message.items() if name not in ("extra", "origin")}
        known: dict[str, str] = {}
        if calls := message.get("tool_calls"):
            written["tool_calls"] = [self._call(call, own=own) for call in calls]
            known = {call["id"]: sent["id"] for call, sent in zip(calls, written["tool_calls"], strict=True)}
        if calls and not written.pop("content", None):
            written |= self._no_content
        elif calls:
            written["content"] = message["content"]
        extra = dict(message.get("extra", {})) if own else {}
        if self._all_reasoning and calls:
            extra.setdefault(REASONING, "")
        elif not in_turn and not self._all_reasoning:
            extra.pop(REASONING, None)
        return {**self._taken(extra), **written}, known

    def _call(self, call: Mapping[str, Any], *, own: bool) -> _Wired:
        function = call["function"]
        name, arguments = name_of(function["name"])[0], arguments_of(function["arguments"])[0]
        extra = self._taken(call.get("extra", {})) if own else {}
        inner = extra.pop("function", {})
        return {
            "id": call["id"],
            **extra,
            "type": "function",
            "function": {**inner, "name": name, "arguments": arguments},
        }

    def _taken(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in extra.items() if name not in self._without}


_SCHEMA = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "id", "type", "function"})


def _kind(tool_choice: object) -> str | None:
    if tool_choice in (None, "auto"):
        return None
    return "none" if tool_choice == "none" else "forced"


def _one_by_one(messages: Sequence[_Wired], no_content: Mapping[str, Any]) -> Iterator[_Wired]:
    """The messages with one call in each answer, which is followed by its result."""
    left = deque(messages)
    while left:
        message = left.popleft()
        calls = message.get("tool_calls", ())
        if len(calls) <= 1:
            yield message
            continue
        results: dict[str, _Wired] = {}
        while left and left[0]["role"] == "tool":
            results[left[0]["tool_call_id"]] = left.popleft()
        for call in calls:
            yield {**message, "tool_calls": [call]}
            if call["id"] in results:
                yield results[call["id"]]
            message = {**{name: value for name, value in message.items() if name != "content"}, **no_content}


def _without_system(messages: Sequence[_Wired]) -> list[_Wired]:
    """The messages with what the system says at the head of the person's first one."""
    told = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": told}, *rest]
    return [{**rest[0], "content": f"{told}\n\n{rest[0]['content']}"}, *rest[1:]]
