"""A conversation as LangChain's messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moorline_agents.calls import arguments_of, name_of
from moorline_agents.messages import Message
from moorline_agents.plain_json import whole_text

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

CONTENT = "langchain"
"""In a message's extra fields: its content and what else LangChain knows of it, as the provider's package made them."""


def langchain_messages(messages: Sequence[Message], origin: str) -> list[BaseMessage]:
    """The messages in LangChain's form. Answers of the model of this `origin` have the content that they came with."""
    return list(_told(messages, origin))


def _told(messages: Sequence[Message], origin: str) -> Iterator[BaseMessage]:
    from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage  # noqa: PLC0415 - takes half a second

    for message in messages:
        content: Any = message["content"]
        match message["role"]:
            case "system":
                yield SystemMessage(whole_text(content or ""))
            case "user":
                yield HumanMessage(_content(content))
            case "tool":
                yield ToolMessage(whole_text(content or ""), tool_call_id=message["tool_call_id"])
            case "assistant":
                yield _answer(message, own=message.get("origin") == origin)


def _answer(message: Message, *, own: bool) -> AIMessage:
    from langchain_core.messages import AIMessage  # noqa: PLC0415 - as above

    kept = message.get("extra", {}).get(CONTENT, {}) if own else {}
    calls: Any = [
        {
            "type": "tool_call",
            "id": call["id"],
            "name": name_of(call["function"]["name"])[0],
            "args": json.loads(arguments_of(call["function"]["arguments"])[0]),
        }
        for call in message.get("tool_calls", ())
    ]
    return AIMessage(
        content=kept.get("content", whole_text(message["content"] or "")),
        tool_calls=calls,
        additional_kwargs=kept.get("additional_kwargs", {}),
        response_metadata=kept.get("response_metadata", {}),
    )


def _content(content: Any) -> Any:
    """What a person sent: a text, or a list of parts as chat-completions servers take it."""
    if not isinstance(content, list):
        return whole_text(content or "")
    return [_block(part) for part in content]


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part as one of LangChain's own blocks, which the packages translate for their providers."""
    match part["type"]:
        case "image_url":
            return {"type": "image", **_data(part["image_url"]["url"])}
        case "file":
            file = part["file"]
            return {"type": "file", **_data(file["file_data"]), "filename": file.get("filename", "file")}
        case _:
            return {"type": "text", "text": whole_text(part["text"])}


def _data(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"url": url}
    head, _, data = url.partition(",")
    return {"base64": data, "mime_type": head.removeprefix("data:").partition(";")[0]}
