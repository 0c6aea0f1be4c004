"""What people, models and tools say, in the form in which the conventions have it on a span: JSON, in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moorline_agents.files import in_words
from moorline_agents.messages import Message


def input_messages(messages: Sequence[Message]) -> str:
    """What a model was asked."""
    return _text([{"role": message["role"], "parts": list(_parts(message))} for message in messages])


def output_messages(message: Message, finish_reason: str) -> str:
    """What it answered."""
    return _text([{"role": message["role"], "parts": list(_parts(message)), "finish_reason": finish_reason}])


def result(value: Any) -> str:
    """What a tool gave."""
    return _text(value)


def _parts(message: Message) -> Iterator[Mapping[str, Any]]:
    content = message["content"]
    if message["role"] == "tool":
        yield {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
    elif content:
        yield {"type": "text", "content": content}
    yield from ({"type": "text", "content": in_words(note)} for note in message.get("files", ()))
    for call in message.get("tool_calls", ()):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield {"type": "tool_call", "id": call["id"], "name": name, "arguments": arguments}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
