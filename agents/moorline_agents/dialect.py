"""What a model server takes: requests in the form that it accepts, as far as its refusals have shown which that is.

Everything is sent as OpenAI's schema has it, until a refusal names what the server does not take. Then it is left out,
or written otherwise, in this request and all that follow. What its answers show of how they are to be read is kept with
that.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from moorline_agents.answer_schema import answer_tool, strict_schema
from moorline_agents.calls import arguments_of, name_of
from moorline_agents.extra_fields import REASONING
from moorline_agents.messages import Message
from moorline_agents.model_options import NO_OPTIONS, AnswerSchema, ModelOptions
from moorline_agents.plain_json import whole_text

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
STRUCTURED = re.compile(
    r"response[_ ]?format|text\.format|json[_ ]?(schema|mode|object)|response mime ?type|structured[_ ]outputs?"
    r"|guided[_ ]",
    re.IGNORECASE,
)
_OPTIONS = {
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "reasoning_effort": re.compile(r"\breasoning[_ .]effort\b", re.IGNORECASE),
    "max_tokens": re.compile(r"\bmax_(completion_)?tokens\b", re.IGNORECASE),
    "max_completion_tokens": re.compile(r"\bmax_completion_tokens\b", re.IGNORECASE),
}
"""How a refusal names what can be left out of a request."""
_OTHER_VALUE = re.compile(
    r"\btoo (large|big|high|low|small)\b|\bat (most|least)\b|\b(less|greater|larger|smaller|more) than\b"
    r"|\b(between|range|maximum|minimum)\b|[<>]=",
    re.IGNORECASE,
)
"""What a server says of a value if it takes others, which is for whoever set it to know."""

Body = dict[str, Any]
_Wired = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is asked."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: object = None
    options: ModelOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one server takes for one model. `origin` names the two in messages that came from them."""

    origin: str
    without: frozenset[str] = frozenset()
    """Parameters and fields that it does not take."""
    choices: frozenset[str] = frozenset()
    """Kinds of `tool_choice` that it does not take: `none`, `forced`."""
    structured: Literal["strict", "schema", "tool"] = "strict"
    """How it is asked for an answer that fits a schema: by its own mode, with the schema in the strict form or as it
    is, or by a tool."""
    no_content: tuple[Mapping[str, Any], ...] = ({"content": None}, {"content": ""}, {})
    """How a message without content is written, and in which other ways it may be."""
    one_call: bool = False
    """Whether an answer may make only one call."""
    no_system: bool = False
    """Whether what the system says has to stand in the person's message, and the roles have to alternate."""
    reasoning: Literal["own", "turn", "all"] = "own"
    """Which answers with calls are shown with reasoning, if only an empty text: those of this turn that came with some
    from this server, all of this turn, or all."""
    thinks_first: bool = False
    """Whether it sends only the closing tag of thinking, so that an answer is told only once the tag has come."""

    def body(self, request: Request) -> Body:
        """The body of a request, but for its being streamed, in the form that the server takes."""
        body: Body = {"model": request.model, "messages": self._wired(request.messages)}
        if "stream_options" not in self.without:
            body["stream_options"] = {"include_usage": True}
        schema = request.options.schema
        if schema is not None and self.structured != "tool":
            body["response_format"] = self._response_format(schema)
            schema = None
        tools, choice = self._tools(request, schema)
        if tools:
            body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = "auto" if _kind(choice) in self.choices else choice
        return body | self._options(request.options)

    @property
    def lost(self) -> frozenset[str]:
        """The options that the server does not take, by any name."""
        return self.without & (_OPTIONS.keys() - {"max_tokens"})

    def learned(self, refusal: str, body: Body) -> Dialect | None:
        """The dialect without what `refusal`, the server's words about a request with this body, names; None if that is
        nothing that can be done without."""
        return self._learned_parameter(refusal, body) or self._learned_form(refusal, body["messages"])

    def _learned_parameter(self, refusal: str, body: Body) -> Dialect | None:
        if "stream_options" in body and re.search("stream_options|include_usage", refusal):
            return replace(self, without=self.without | {"stream_options"})
        if option := refused_option(refusal, body, _OPTIONS):
            return replace(self, without=self.without | {option})
        if "response_format" in body and STRUCTURED.search(refusal):
            strict = body["response_format"]["json_schema"]["strict"]
            return replace(self, structured="schema" if strict else "tool")
        kind = _kind(body.get("tool_choice"))
        if kind is not None and _TOOL_CHOICE.search(refusal):
            return replace(self, choices=self.choices | {kind})
        return None

    def _learned_form(self, refusal: str, messages: Sequence[_Wired]) -> Dialect | None:
        demanded = bool(_DEMANDED.search(refusal))
        if demanded and self.reasoning == "own" and _lacks_reasoning(messages[_turn(messages) :]):
            return replace(self, reasoning="turn")
        if demanded and self.reasoning != "all" and _lacks_reasoning(messages):
            return replace(self, reasoning="all")
        named = {name for name in _extra_names(messages) if re.search(rf"\b{re.escape(name)}\b", refusal)}
        if named := named - ({REASONING} if demanded else set()):
            return replace(self, without=self.without | named)
        if _lacks_content(messages) and len(self.no_content) > 1 and _CONTENT.search(refusal):
            return replace(self, no_content=self.no_content[1:])
        return self._learned_order(refusal, messages)

    def _learned_order(self, refusal: str, messages: Sequence[_Wired]) -> Dialect | None:
        several = any(len(message.get("tool_calls", ())) > 1 for message in messages)
        if several and not self.one_call and _PARALLEL.search(refusal):
            return replace(self, one_call=True)
        return replace(self, no_system=True) if not self.no_system and _ROLE.search(refusal) else None

    def _options(self, options: ModelOptions) -> dict[str, Any]:
        # Everybody knows the older name, if only to refuse it in favour of the other.
        limit = "max_completion_tokens" if "max_tokens" in self.without else "max_tokens"
        given = {
            "temperature": options.temperature,
            limit: options.max_tokens,
            "reasoning_effort": options.reasoning_effort,
        }
        taken = {name: value for name, value in given.items() if value is not None and name not in self.without}
        return {**taken, **options.extra_body}

    def _response_format(self, schema: AnswerSchema) -> dict[str, Any]:
        strict = strict_schema(schema.schema) if self.structured == "strict" else None
        wanted = {"name": schema.name, "schema": strict or dict(schema.schema), "strict": strict is not None}
        return {"type": "json_schema", "json_schema": wanted}

    def _tools(self, request: Request, schema: AnswerSchema | None) -> tuple[list[Mapping[str, Any]], object]:
        """The tools that are offered, and which must be called; with a schema, one of them gives the answer."""
        if schema is None:
            return list(request.tools), request.tool_choice
        tools = () if request.tool_choice == "none" else request.tools
        choice = request.tool_choice if isinstance(request.tool_choice, Mapping) else "required"
        return [*tools, answer_tool(schema)], choice

    def _wired(self, messages: Sequence[Message]) -> list[_Wired]:
        turn = _turn(messages)
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
            if written.get("content"):
                written["content"] = _whole(written["content"])
            wired.append(written)
        if self.one_call:
            wired = list(_one_by_one(wired, self.no_content[0]))
        return _without_system(wired) if self.no_system else wired

    def _answer(self, message: Message, *, in_turn: bool) -> tuple[_Wired, dict[str, str]]:
        own = message.get("origin") == self.origin
        written: _Wired = {name: value for name, value in message.items() if name not in ("extra", "origin")}
        known: dict[str, str] = {}
        if calls := message.get("tool_calls"):
            written["tool_calls"] = [self._call(call, own=own) for call in calls]
            known = {call["id"]: sent["id"] for call, sent in zip(calls, written["tool_calls"], strict=True)}
        if calls and not written.pop("content", None):
            written |= self.no_content[0]
        elif calls:
            written["content"] = message["content"]
        extra = dict(message.get("extra", {})) if own else {}
        if not in_turn and self.reasoning != "all":
            extra.pop(REASONING, None)
        elif calls and self.reasoning != "own":
            extra.setdefault(REASONING, "")
        return {**self._taken(extra), **written}, known

    def _call(self, call: Mapping[str, Any], *, own: bool) -> _Wired:
        function = call["function"]
        name, arguments = name_of(function["name"])[0], arguments_of(function["arguments"])[0]
        extra = self._taken(call.get("extra", {})) if own else {}
        inner = self._taken(extra.pop("function", {}))
        return {
            "id": call["id"],
            **extra,
            "type": "function",
            "function": {**inner, "name": name, "arguments": arguments},
        }

    def _taken(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in extra.items() if name not in self.without}


def refused_option(refusal: str, body: Body, options: Mapping[str, re.Pattern[str]]) -> str | None:
    """Which of the options in the body the server does not take, whatever their values; `options` are their names, and
    how a refusal names them."""
    if _OTHER_VALUE.search(refusal):
        return None
    return next((name for name, named in options.items() if name in body and named.search(refusal)), None)


_SCHEMA = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "arguments", "id", "type", "function"})


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
            given = left.popleft()
            results[given["tool_call_id"]] = given
        for call in calls:
            yield {**message, "tool_calls": [call]}
            if call["id"] in results:
                yield results[call["id"]]
            message = {**{name: value for name, value in message.items() if name != "content"}, **no_content}


def _without_system(messages: Sequence[_Wired]) -> list[_Wired]:
    """The messages with what the system says at the head of the person's first one, and texts of a person that follow
    each other in one."""
    told = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    wired: list[_Wired] = [{"role": "user", "content": "\n\n".join(told)}] if told else []
    for message in rest:
        if wired and message["role"] == wired[-1]["role"] == "user":
            wired[-1] = {**message, "content": _joined(wired[-1]["content"], message["content"])}
        else:
            wired.append(message)
    return wired


def _whole(content: str | Sequence[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    """What is said, a text or parts, in whole characters."""
    if isinstance(content, str):
        return whole_text(content)
    return [{**part, "text": whole_text(part["text"])} if "text" in part else part for part in content]


def _joined(one: Any, other: Any) -> Any:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [*_parts(one), *_parts(other)]


def _parts(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the turn that is being answered begins: the position of the person's last message."""
    return max((at for at, message in enumerate(messages) if message["role"] == "user"), default=0)


def _lacks_reasoning(messages: Sequence[_Wired]) -> bool:
    return any(REASONING not in message for message in messages if message["role"] == "assistant")


def _lacks_content(messages: Sequence[_Wired]) -> bool:
    return any(not message.get("content") for message in messages)


def _extra_names(messages: Sequence[_Wired]) -> set[str]:
    """The names of all fields that OpenAI's schema does not have."""
    calls = list(chain.from_iterable(message.get("tool_calls", ()) for message in messages))
    holders = chain(messages, calls, (call["function"] for call in calls))
    return set(chain.from_iterable(holder.keys() for holder in holders)) - _SCHEMA
