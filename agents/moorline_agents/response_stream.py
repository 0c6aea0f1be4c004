"""Puts an answer together from the events of a stream of OpenAI's Responses API. An answer is either whole or a
`ModelError`, as those of chat-completions servers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from moorline_agents.answer_text import AnswerText
from moorline_agents.calls import MOST_CALLS, checked
from moorline_agents.extra_fields import bound
from moorline_agents.json_limits import objection
from moorline_agents.messages import Message, ModelAnswer, ToolCall, Usage
from moorline_agents.model_errors import AnswerCutOff, ModelError, said_by_server
from moorline_agents.responses_dialect import PHASE, REASONING_ITEMS

_MOST_TOKENS = 10**12  # more is no count
_MOST_ITEMS = 1_000
_TEXTS = ("response.output_text.delta", "response.refusal.delta")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponseStream:
    """Takes in the events of one streamed response, in order. What it does not know it passes over."""

    def __init__(self) -> None:
        self._text = AnswerText()
        self._items: dict[int, Mapping[str, Any]] = {}
        """The items that are whole, by their place."""
        self._told: int | None = None
        """The place of the item whose text came last."""
        self._end: Mapping[str, Any] | None = None
        """The response as the last event has it."""
        self.begun = False
        self.usage = Usage()

    def add(self, chunk: object) -> str:
        """Takes in one event and returns the text in it that may be shown. Raises `ModelError` for one that says that
        the model failed, and for what is no event."""
        event = _fields(chunk)
        kind = event.get("type")
        if kind in _TEXTS:
            return self._add_text(event.get("output_index"), event.get("delta"))
        if kind == "response.output_item.added":
            self.begun = True
        elif kind == "response.output_item.done":
            return self._add_item(event.get("output_index"), event.get("item"))
        elif kind == "error":
            raise said_by_server(event)
        elif kind in _ENDS:
            return self._add_end(_mapping(event.get("response")))
        elif not isinstance(kind, str):
            raise ModelError.malformed()
        return ""

    def end(self) -> str:
        """Says that no event will follow, and returns the text that was held back till then."""
        return self._text.end()

    @property
    def says_nothing(self) -> bool:
        """Whether the response was completed without text and without calls."""
        completed = self._end is not None and self._end.get("status", "completed") == "completed"
        return completed and not str(self._text).strip() and not any(self._of("function_call"))

    def finish(self, *, ended: bool) -> ModelAnswer:  # noqa: ARG002 - its last event says so
        """The whole answer, after `end`. Raises `ModelError` if it is none."""
        if self._end is None and not self.begun and not self._items:
            raise ModelError(
                "The model server sent no answer. Check that the one of OPENAI_BASE_URL has the Responses API.",
                retryable=False,
            )
        if self._end is None:
            raise ModelError("The model's answer was cut off before its end.", retryable=True)
        reason = _mapping(self._end.get("incomplete_details") or {}).get("reason")
        if reason == "max_output_tokens":
            raise AnswerCutOff
        if reason == "content_filter":
            raise ModelError.filtered()
        if self._end.get("status") == "incomplete":
            raise ModelError("The model's answer was cut off before its end.", retryable=True)
        message = self._message()
        return ModelAnswer(message, self.usage, "tool_calls" if message.get("tool_calls") else "stop")

    def _message(self) -> Message:
        text, extra, calls = str(self._text), self._extra(), self._calls()
        if not calls and not text.strip():
            raise ModelError("The model gave an empty answer.", retryable=True)
        bound([extra, *(each for call in calls if isinstance(each := call["extra"], dict))])
        message: Message = {"role": "assistant", "content": text}
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        if extra:
            message["extra"] = extra
        return checked(message)

    def _extra(self) -> dict[str, Any]:
        """Of the text: the reasoning before it, and its phase."""
        extra: dict[str, Any] = {}
        for item, reasoning in self._reasoned("message"):
            if reasoning:
                extra.setdefault(REASONING_ITEMS, []).extend(reasoning)
            if isinstance(phase := item.get(PHASE), str):
                extra[PHASE] = phase
        return extra

    def _calls(self) -> list[ToolCall]:
        calls: list[ToolCall] = []
        for item, reasoning in self._reasoned("function_call"):
            name, arguments = item.get("name"), item.get("arguments")
            if not (isinstance(name, str) and name):
                raise ModelError("The model called a tool without naming it.", retryable=True)
            calls.append(
                {
                    "id": str(item.get("call_id") or ""),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else ""},
                    "extra": {REASONING_ITEMS: reasoning} if reasoning else {},
                }
            )
        return calls[: MOST_CALLS + 1]

    def _reasoned(self, kind: str) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
        """The items of a kind, each with the reasoning right before it."""
        reasoning: list[Mapping[str, Any]] = []
        for _, item in sorted(self._items.items()):
            if item.get("type") == "reasoning":
                if kept := _kept(item):
                    reasoning.append(kept)
                continue
            if item.get("type") == kind:
                yield item, reasoning
            reasoning = []

    def _of(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (item for item in self._items.values() if item.get("type") == kind)

    def _add_text(self, place: object, text: object) -> str:
        self.begun = True
        if not isinstance(text, str):
            raise ModelError.malformed()
        apart = "\n\n" if self._told not in (None, place) and str(self._text) else ""
        self._told = place if isinstance(place, int) else self._told
        return self._text.add(apart + text)

    def _add_item(self, place: object, item: object) -> str:
        self.begun = True
        if not isinstance(place, int) or len(self._items) > _MOST_ITEMS:
            raise ModelError.malformed()
        item = self._items[place] = _mapping(item)
        if item.get("type") != "message" or self._told == place:
            return ""
        # A server may send the text of an item in no other way.
        parts = [_mapping(part) for part in item.get("content") or ()]
        text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
        return self._add_text(place, text) if text else ""

    def _add_end(self, response: Mapping[str, Any]) -> str:
        counts = _mapping(response.get("usage") or {})
        self.usage = Usage(_tokens(counts.get("input_tokens")), _tokens(counts.get("output_tokens")))
        if response.get("status") == "failed" or response.get("error"):
            raise said_by_server(_mapping(response.get("error") or {}))
        self._end = response
        told = ""
        for place, item in enumerate(response.get("output") or ()):
            if place not in self._items:
                told += self._add_item(place, item)
        return told


def _kept(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """A reasoning item in the form in which it can be sent back to a server that stores nothing, if there is one."""
    secret = item.get("encrypted_content")
    if not isinstance(secret, str):
        return None
    summary = item.get("summary")
    kept = {"type": "reasoning", "summary": summary if isinstance(summary, list) else [], "encrypted_content": secret}
    return kept if objection(kept) is None else None


def _tokens(count: object) -> int:
    return min(max(count, 0), _MOST_TOKENS) if isinstance(count, int) else 0


def _fields(chunk: object) -> Mapping[str, Any]:
    """The fields of an event, which the client gives as a model of its own that has not been checked."""
    if isinstance(chunk, BaseModel):
        return chunk.model_dump(mode="json", exclude_unset=True, warnings=False)
    return _mapping(chunk)


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise ModelError.malformed()
