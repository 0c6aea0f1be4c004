"""Answers that have to fit a JSON schema, as servers are asked for them.

Servers with a mode for that get the schema; for the others it becomes the arguments of a tool that the model calls to
answer, and the call becomes the text that the mode would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.model_options import AnswerSchema

ANSWER = "final_answer"
"""The name of that tool."""

_MAPS = ("properties", "$defs", "definitions", "patternProperties")
"""Members of a schema that hold schemas by name."""


def answer_tool(schema: AnswerSchema) -> dict[str, Any]:
    """The tool's entry in the list `tools`."""
    about = f" {schema.description}" if schema.description else ""
    told = f"Gives the final answer; call it, alone, instead of answering in text.{about}"
    return {"type": "function", "function": {"name": ANSWER, "description": told, "parameters": dict(schema.schema)}}


def answered(answer: ModelAnswer) -> ModelAnswer:
    """The answer with the text that the model gave by calling the tool. If it called others beside it, those count: it
    had not seen what they give."""
    calls = answer.message.get("tool_calls", [])
    given = [call for call in calls if call["function"]["name"] == ANSWER]
    if not given:
        return answer
    others = [call for call in calls if call not in given]
    if others:
        return ModelAnswer({**answer.message, "tool_calls": others}, answer.usage, answer.finish_reason)
    message: Message = {**answer.message, "content": given[0]["function"]["arguments"]}
    del message["tool_calls"]
    return ModelAnswer(message, answer.usage, answer.finish_reason)


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema in the form that lets a server hold the model to it exactly: closed objects, every field required, no
    defaults. None if it has objects whose fields are not known, which no such form allows."""
    try:
        return _strict(schema)
    except _Open:
        return None


class _Open(Exception):
    """An object may have fields of any name."""


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: _member(name, value) for name, value in schema.items() if name != "default"}
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties", False) is not False or "patternProperties" in schema:
            raise _Open
        made.setdefault("properties", {})
        made |= {"additionalProperties": False, "required": list(made["properties"])}
    return made


def _member(name: str, value: Any) -> Any:
    if name in _MAPS and isinstance(value, Mapping):
        return {key: _inner(inner) for key, inner in value.items()}
    return value if name in ("enum", "const", "examples") else _inner(value)


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _strict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_inner(each) for each in value]
    return value
