"""Puts a model's answer together from the chunks of its stream.

An answer is either whole or a `ModelError`: a stream that was cut off, filtered or garbled is never taken for an
answer. Whether the tools it calls exist and their arguments fit is checked where they are run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pydantic import BaseModel

from moorline_agents.answer_text import AnswerText
from moorline_agents.calls import checked
from moorline_agents.extra_fields import ExtraFields, bound
from moorline_agents.messages import FunctionCall, Message, ModelAnswer, ToolCall, Usage
from moorline_agents.model_errors import AnswerCutOff, ModelError
from moorline_agents.streamed_calls import CallPart, StreamedCall, StreamedCalls

_MOST_TOKENS = 10**12  # more is no count
_DELTA = frozenset({"role", "content", "refusal", "tool_calls", "function_call"})
_CALL = frozenset({"index", "id", "type", "function"})
_FUNCTION = frozenset({"name", "arguments"})


class AnswerStream:
    """Takes in the chunks of one streamed completion, in order. `tools` are the names of the tools that were offered;
    for `thinks_first` see `AnswerText`.

    No chunk is judged by itself: what it lacks may come in another.
    """

    def __init__(self, tools: AbstractSet[str] = frozenset(), *, thinks_first: bool = False) -> None:
        self._text = AnswerText(thinks_first=thinks_first)
        self._calls = StreamedCalls(tools)
        self._extra = ExtraFields()
        self._finish_reason: str | None = None
        self._any_choice = False
        self.usage = Usage()
        """The tokens that the answer cost, as far as the server has said."""
        self._counted_last = False

    def add(self, chunk: object) -> str:
        """Takes in one chunk and returns the text in it that may be shown, "" if there is none.

        A refusal counts as text: it is what the model has to say. Raises `ModelError` for anything that does
        not look like a chunk.
        """
        read = _fields(chunk)
        self._add_usage(read.get("usage"))
        text = ""
        for choice in map(_fields, _list(read.get("choices"))):
            if choice.get("index"):  # only one answer was asked for; ignore others
                continue
            self._any_choice, self._counted_last = True, False
            reason = choice.get("finish_reason")
            self._finish_reason = reason if isinstance(reason, str) and reason else self._finish_reason
            if choice.get("delta") is not None:
                text += self._add_delta(_fields(choice["delta"]))
        return text

    def end(self) -> str:
        """Says that no chunk will follow, and returns the text that was held back till then."""
        return self._text.end()

    @property
    def begun(self) -> bool:
        """Whether any part of an answer has come."""
        return self._any_choice

    @property
    def thinks_first(self) -> bool:
        """Whether the server is known to send only the closing tag of thinking."""
        return self._text.thinks_first

    @property
    def says_nothing(self) -> bool:
        """Whether the answer came to its end without text, or with a call that names no tool."""
        whole = self._any_choice and self._finish_reason not in ("length", "content_filter")
        return whole and (not all(call.name for call in self._made) if self._made else not str(self._text).strip())

    def finish(self, *, ended: bool) -> ModelAnswer:
        """The whole answer, after `end`. `ended` says that the stream came to its end mark. Raises `ModelError` if it
        is no whole answer."""
        if not self._any_choice:
            raise ModelError(
                "The model server sent no answer. Check that OPENAI_BASE_URL names a chat-completions server "
                "that can stream.",
                retryable=False,
            )
        # Some servers give no finish reason. Tokens are counted when all is said.
        if self._finish_reason is None and not ended and not self._counted_last:
            raise ModelError("The model's answer was cut off before its end.", retryable=True)
        if self._finish_reason == "length":
            raise AnswerCutOff
        if self._finish_reason == "content_filter":
            raise ModelError.filtered()
        return ModelAnswer(self._message(), self.usage, self._finish_reason)

    def _message(self) -> Message:
        text = str(self._text)
        calls = self._tool_calls()
        if not calls and not text.strip():
            raise ModelError("The model gave an empty answer.", retryable=True)
        if not all(call["function"]["name"] for call in calls):
            raise ModelError("The model called a tool without naming it.", retryable=True)
        extra = self._extra.whole()
        bound([extra, *(dict_of for call in calls if isinstance(dict_of := call["extra"], dict))])
        message: Message = {"role": "assistant", "content": text}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        if extra:
            message["extra"] = extra
        return checked(message)

    def _tool_calls(self) -> list[ToolCall]:
        calls: list[ToolCall] = []
        for call in self._made:
            call_id, extra = next(iter(call.ids), ""), call.extra.whole()
            for arguments in call.apart():
                function: FunctionCall = {"name": call.name, "arguments": arguments}
                calls.append({"id": call_id, "type": "function", "function": function, "extra": extra})
                call_id, extra = "", {}  # of a second one in it, nothing more is known
        return calls

    @property
    def _made(self) -> list[StreamedCall]:
        """The calls that were made: an entry that says nothing is none."""
        return [call for call in self._calls.calls if call.name.strip() or call.begun]

    def _add_delta(self, delta: Mapping[str, Any]) -> str:
        self._extra.add({name: value for name, value in delta.items() if name not in _DELTA})
        parts = [_call_part(_fields(entry)) for entry in _list(delta.get("tool_calls"))]
        self._calls.add(parts)
        return self._text.add("".join((*_texts(delta.get("content")), *_texts(delta.get("refusal")))))

    def _add_usage(self, usage: object) -> None:
        if usage is None:
            return
        counts = _fields(usage)
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        self.usage = Usage(_tokens(prompt), _tokens(completion))
        self._counted_last = True


def _call_part(entry: Mapping[str, Any]) -> CallPart:
    function = {} if entry.get("function") is None else _fields(entry["function"])
    extra = {name: value for name, value in entry.items() if name not in _CALL}
    if more := {name: value for name, value in function.items() if name not in _FUNCTION and value is not None}:
        extra["function"] = more
    index, call_id, arguments = entry.get("index"), entry.get("id"), function.get("arguments")
    return CallPart(
        index=index if isinstance(index, int) else None,
        id="" if call_id is None else str(call_id),
        name=_text(function.get("name")),
        arguments=arguments if isinstance(arguments, str) else _dumped(arguments),
        extra=extra,
    )


def _tokens(count: object) -> int:
    return min(max(count, 0), _MOST_TOKENS) if isinstance(count, int) else 0


def _dumped(arguments: object) -> str:
    """Arguments that came as JSON itself, not as its text."""
    try:
        return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    except RecursionError as error:
        raise ModelError.malformed() from error


def _fields(value: object) -> Mapping[str, Any]:
    """The fields of an object, which the client gives as a model of its own that has not been checked."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.model_extra or {})}
    if isinstance(value, dict):
        return value
    raise ModelError.malformed()


def _list(value: object) -> Sequence[Any]:
    if value is None:
        return ()
    if isinstance(value, list):
        return value
    raise ModelError.malformed()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise ModelError.malformed()


def _texts(content: object) -> Iterator[str]:
    """The texts in a delta's content, which may be a list of parts: what is no text, such as thinking, is left out."""
    if content is None or isinstance(content, str):
        yield content or ""
        return
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part
        elif (read := _fields(part)).get("type", "text") in ("text", "output_text"):
            yield _text(read.get("text"))
