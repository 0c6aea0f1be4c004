"""Requests of OpenAI's Responses API, in the form that a server takes, as far as its refusals have shown which that is.

A conversation is kept as chat-completions messages; here it becomes a list of items. Nothing is stored at the server:
its reasoning comes encrypted, is kept with the message or the call that it led to, and goes back where it stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moorline_agents.answer_schema import answer_tool, strict_schema
from moorline_agents.calls import arguments_of, name_of
from moorline_agents.dialect import STRUCTURED, Body, Request, refused_option
from moorline_agents.messages import Message
from moorline_agents.model_options import AnswerSchema, ModelOptions
from moorline_agents.plain_json import whole_text

REASONING_ITEMS = "reasoning_items"
"""In a message's or a call's extra fields: the reasoning that led to it."""

PHASE = "phase"
"""In a message's extra fields: whether its text was a comment or the answer, in the server's word."""

_ENCRYPTED = "reasoning.encrypted_content"
_INCLUDE = re.compile(r"\binclude\b|encrypted[ _]content is not supported", re.IGNORECASE)
_UNREADABLE = re.compile(r"encrypted[ _]content|\breasoning\b.{0,20}\bitems?\b|type.{0,3}reasoning\b", re.IGNORECASE)
_OPTIONS = {
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "max_output_tokens": re.compile(r"\bmax_output_tokens\b", re.IGNORECASE),
    "reasoning": re.compile(r"\breasoning[_ .]effort\b|'reasoning'", re.IGNORECASE),
}
_TOOL_CHOICE = re.compile(r"tool[ _]?choice|forced? (a )?(tool|function)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesDialect:
    """What one server takes for one model. `origin` names the two in messages that came from them."""

    origin: str
    without: frozenset[str] = frozenset()
    """Parameters that it does not take, and `reasoning_items` if it does not take its reasoning back."""
    choices: frozenset[str] = frozenset()
    """Kinds of `tool_choice` that it does not take: `none`, `forced`."""
    structured: str = "strict"
    """How it is asked for an answer that fits a schema: by its mode, with a `strict` schema or with the `schema` as it
    is, or by a `tool`."""

    @property
    def lost(self) -> frozenset[str]:
        return self.without & _OPTIONS.keys()

    def body(self, request: Request) -> Body:
        system, rest = _instructions(request.messages)
        body: Body = {"model": request.model, "store": False}
        if system:
            body["instructions"] = system
        body["input"] = [item for message in rest for item in self._items(message)]
        schema = request.options.schema
        if schema is not None and self.structured != "tool":
            body["text"] = {"format": self._format(schema)}
            schema = None
        tools, choice = _tools(request, schema)
        if tools:
            body["tools"] = tools
        if choice is not None:
            forced = "none" if choice == "none" else "forced"
            body["tool_choice"] = "auto" if forced in self.choices else choice
        if "include" not in self.without:
            body["include"] = [_ENCRYPTED]
        return _merged(body, self._options(request.options))

    def learned(self, refusal: str, body: Body) -> ResponsesDialect | None:
        if option := refused_option(refusal, body, _OPTIONS):
            return replace(self, without=self.without | {option})
        if "include" in body and _INCLUDE.search(refusal):
            return replace(self, without=self.without | {"include"})
        given = any(item.get("type") == "reasoning" for item in body["input"])
        if given and _UNREADABLE.search(refusal):
            return replace(self, without=self.without | {REASONING_ITEMS})
        wanted = body.get("text", {}).get("format")
        if wanted and STRUCTURED.search(refusal):
            return replace(self, structured="schema" if wanted["strict"] else "tool")
        kind = body.get("tool_choice", "auto")
        if kind != "auto" and _TOOL_CHOICE.search(refusal):
            return replace(self, choices=self.choices | {"none" if kind == "none" else "forced"})
        return None

    def _options(self, options: ModelOptions) -> dict[str, Any]:
        effort = options.reasoning_effort
        given = {
            "temperature": options.temperature,
            "max_output_tokens": options.max_tokens,
            "reasoning": None if effort is None else {"effort": effort},
        }
        taken = {name: value for name, value in given.items() if value is not None and name not in self.without}
        return _merged(dict(options.extra_body), taken)

    def _format(self, schema: AnswerSchema) -> dict[str, Any]:
        strict = strict_schema(schema.schema) if self.structured == "strict" else None
        shown = strict or dict(schema.schema)
        return {"type": "json_schema", "name": schema.name, "schema": shown, "strict": strict is not None}

    def _items(self, message: Message) -> Iterator[dict[str, Any]]:
        content: Any = message["content"]
        match message["role"]:
            case "assistant":
                yield from self._answer(message, content)
            case "tool":
                call_id = message["tool_call_id"]
                yield {"type": "function_call_output", "call_id": call_id, "output": whole_text(content or "")}
            case "system":
                yield {"role": "developer", "content": whole_text(content or "")}
            case "user":
                yield {"role": "user", "content": _content(content)}

    def _answer(self, message: Message, content: Any) -> Iterator[dict[str, Any]]:
        own = message.get("origin") == self.origin
        extra = message.get("extra", {}) if own else {}
        calls = message.get("tool_calls", ())
        if content:
            yield from self._reasoning(extra)
            phase = {PHASE: extra[PHASE]} if PHASE in extra else {}
            yield {"role": "assistant", "content": whole_text(content), **phase}
        for call in calls:
            function = call["function"]
            yield from self._reasoning(call.get("extra", {}) if own else {})
            yield {
                "type": "function_call",
                "call_id": call["id"],
                "name": name_of(function["name"])[0],
                "arguments": arguments_of(function["arguments"])[0],
            }

    def _reasoning(self, extra: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if REASONING_ITEMS not in self.without:
            yield from extra.get(REASONING_ITEMS, ())


def _instructions(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    first = messages[0] if messages else None
    if first is None or first["role"] != "system":
        return "", messages
    return whole_text(first["content"] or ""), messages[1:]


def _tools(request: Request, schema: AnswerSchema | None) -> tuple[list[dict[str, Any]], Any]:
    """The tools that are offered, and which must be called; with a schema, one of them gives the answer."""
    offered, choice = list(request.tools), request.tool_choice
    if schema is not None:
        offered = [*(() if choice == "none" else offered), answer_tool(schema)]
        choice = choice if isinstance(choice, Mapping) else "required"
    if isinstance(choice, Mapping):
        choice = {"type": "function", "name": choice["function"]["name"]}
    # Here schemas are strict unless that is declined, and not every tool's schema can be.
    return [{"type": "function", "strict": False, **tool["function"]} for tool in offered], choice


def _content(content: Any) -> Any:
    """What a person sent: a text, or a list of parts as chat-completions servers take it."""
    if not isinstance(content, list):
        return whole_text(content or "")
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "image_url":
            return {"type": "input_image", "image_url": part["image_url"]["url"]}
        case "file":
            return {"type": "input_file", **part["file"]}
        case _:
            return {"type": "input_text", "text": whole_text(part["text"])}


def _merged(body: Body, more: Mapping[str, Any]) -> Body:
    """Both together; objects that stand in both are merged."""
    merged = {**body, **more}
    for name in body.keys() & more.keys():
        if isinstance(body[name], Mapping) and isinstance(more[name], Mapping):
            merged[name] = {**body[name], **more[name]}
    return merged
