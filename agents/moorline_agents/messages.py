"""What a model is shown and answers: chat-completions messages as plain dicts, and the tokens they cost.

They are plain dicts on purpose: these go over the wire as they are, and a strict deserialiser accepts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Required, TypedDict


class FunctionCall(TypedDict):
    """The tool that a model names, and the JSON text it wrote as arguments; neither has been checked."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One call in a model's answer; the `tool` message with its result refers to its `id`."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict, total=False):
    """One message of a conversation, in the form that chat-completions servers use.

    `tool_calls` is on assistant messages that call tools (`content` may then be None), `tool_call_id` on
    `tool` messages.
    """

    role: Required[Literal["system", "user", "assistant", "tool"]]
    content: Required[str | None]
    tool_calls: list[ToolCall]
    tool_call_id: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them, zero if it did not say. Usages can be added."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def as_dict(self) -> dict[str, int]:
        """The usage as JSON; `Usage(**usage.as_dict())` is equal to it."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A whole answer: an assistant message with text, tool calls or both, and what it cost."""

    message: Message
    usage: Usage = Usage()
