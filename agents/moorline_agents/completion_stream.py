"""Puts a model's answer together from the chunks of its stream.

An answer is either whole or a `ModelError`: a stream that was cut off, filtered or garbled is never taken for an
answer. Whether the tools it calls exist and their arguments fit is checked where they are run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from moorline_agents.messages import ModelAnswer, Usage
from moorline_agents.model_errors import ModelError

if TYPE_CHECKING:
    from moorline_agents.messages import Message, ToolCall


class AnswerStream:
    """Takes in the chunks of one streamed completion, in order."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: list[_Call] = []
        self._finish_reason: str | None = None
        self._any_choice = False
        self._usage = Usage()

    def add(self, chunk: object) -> str:
        """Takes in one chunk and returns the text in it, "" if there is none.

        A refusal counts as text: it is what the model has to say. Raises `ModelError` for anything that does
        not look like a chunk.
        """
        try:
            read = _Chunk.model_validate(chunk)
        except ValidationError as error:
            raise ModelError.malformed() from error
        if read.usage is not None:
            self._usage = Usage(read.usage.prompt_tokens or 0, read.usage.completion_tokens or 0)
        text = ""
        for choice in read.choices or ():
            if choice.index:  # only one answer was asked for; ignore others
                continue
            self._any_choice = True
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.delta is None:
                continue
            text += (choice.delta.content or "") + (choice.delta.refusal or "")
            for part in choice.delta.tool_calls or ():
                self._add_call(part)
        self._text.append(text)
        return text

    def finish(self) -> ModelAnswer:
        """The whole answer, at the end of the stream. Raises `ModelError` if it is not one."""
        if not self._any_choice:
            raise ModelError(
                "The model server sent no answer. Check that OPENAI_BASE_URL names a chat-completions server "
                "that can stream.",
                retryable=False,
            )
        if self._finish_reason is None:
            raise ModelError("The model's answer was cut off before its end.", retryable=True)
        if self._finish_reason == "length":
            raise ModelError(
                "The model's answer ran into its length limit. Raise the server's limit or use a model with "
                "more room (OPENAI_MODEL).",
                retryable=False,
            )
        if self._finish_reason == "content_filter":
            raise ModelError(
                "The model server's content filter held the answer back. Rephrase the message.",
                retryable=False,
            )
        return ModelAnswer(self._message(), self._usage)

    def _message(self) -> Message:
        text = "".join(self._text)
        if not self._calls:
            if not text.strip():
                raise ModelError("The model gave an empty answer.", retryable=True)
            return {"role": "assistant", "content": text}
        if not all(call.name for call in self._calls):
            raise ModelError("The model called a tool without naming it.", retryable=True)
        return {"role": "assistant", "content": text or None, "tool_calls": self._tool_calls()}

    def _tool_calls(self) -> list[ToolCall]:
        calls: list[ToolCall] = []
        taken: set[str] = set()
        for call in self._calls:
            # Results are matched to calls by ID, which some servers leave out or use twice.
            call_id = call.id if call.id and call.id not in taken else f"call_{uuid4().hex}"
            taken.add(call_id)
            arguments = "".join(call.arguments).strip() or "{}"
            calls.append({"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        return calls

    def _add_call(self, part: _CallDelta) -> None:
        call = self._call_of(part)
        if part.function is not None:
            call.name = call.name or part.function.name or ""
            call.arguments.append(part.function.arguments or "")

    def _call_of(self, part: _CallDelta) -> _Call:
        """The call that this delta continues, or a new one.

        Some servers number every call 0, and some number none; a new ID starts a new call in any case.
        """
        for call in reversed(self._calls):
            if part.id and part.id != call.id:
                continue
            if part.index is None or part.index == call.index:
                return call
        call = _Call(index=part.index, id=part.id or "")
        self._calls.append(call)
        return call


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class _Shape(BaseModel):
    """The client does not check what it parses. These models do, and keep the text of the answer out of the error."""

    model_config = ConfigDict(from_attributes=True, hide_input_in_errors=True, frozen=True)


def _sendable(text: str) -> str:
    text.encode()  # JSON can hold half a character (a lone surrogate), which could not be sent or stored later
    return text


_Text = Annotated[str, AfterValidator(_sendable)]


class _FunctionDelta(_Shape):
    name: _Text | None = None
    arguments: _Text | None = None


class _CallDelta(_Shape):
    index: int | None = None
    id: _Text | None = None
    function: _FunctionDelta | None = None


class _Delta(_Shape):
    content: _Text | None = None
    refusal: _Text | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(_Shape):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _TokenCounts(_Shape):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(_Shape):
    choices: list[_Choice] | None = None
    usage: _TokenCounts | None = None
