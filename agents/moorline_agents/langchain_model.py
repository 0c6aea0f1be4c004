"""Any LangChain chat model behind an agent, and with it every provider that has a package for LangChain.

Its chunks are put together as those of chat-completions servers are; what only its provider understands of an answer,
such as thinking and its signature, is kept with the message and goes back to the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

from moorline_agents.answer_schema import answer_tool, answered
from moorline_agents.completion_stream import AnswerStream
from moorline_agents.extra_fields import bound, signed
from moorline_agents.json_limits import objection
from moorline_agents.langchain_messages import CONTENT, langchain_messages
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.model_errors import InTime, ModelError
from moorline_agents.model_options import NO_OPTIONS, ModelOptions

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage

    from moorline_agents.model import ToolChoice

_REASONS = ("finish_reason", "stop_reason", "done_reason")
_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
_FILTERED = frozenset({"content_filter", "refusal", "safety", "recitation", "prohibited_content", "blocklist", "spii"})


class LangChainModel:
    """A LangChain chat model as a `Model`: one streamed answer, whole or a `ModelError`.

    `timeout` is the seconds that an answer may take in all; retries are the chat model's own. `name` is the name of the
    model in events, traces and the counts of tokens, by default the chat model's own. The options of an agent are
    passed on as keyword arguments of the call, with the names that most providers use: `temperature`, `max_tokens`,
    `reasoning_effort`, and each field of `extra_body`.
    """

    def __init__(self, chat_model: BaseChatModel, *, timeout: float = 30, name: str | None = None) -> None:
        self._chat_model = chat_model
        self._timeout = timeout
        named = (getattr(chat_model, field, None) for field in ("model_name", "model"))
        self.name = name or next((each for each in named if isinstance(each, str) and each), type(chat_model).__name__)
        self.provider = str(chat_model._llm_type)
        """Whose API it speaks, as the chat model names it; for traces."""
        self._origin = sha256(f"{self.provider}\n{self.name}".encode()).hexdigest()[:16]
        self._refused: frozenset[str] = frozenset()
        """Kinds of `tool_choice` that the provider does not take: `none`, `forced`."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice | None = None,
        on_text: Callable[[str], None] | None = None,
        options: ModelOptions | None = None,
    ) -> ModelAnswer:
        """One answer to `messages`, as `Model.complete` says. Raises `ModelError`."""
        options = options or NO_OPTIONS
        choice: Any = tool_choice
        if options.schema is not None:
            tools = [*(() if tool_choice == "none" else tools), answer_tool(options.schema)]
            choice = tool_choice if isinstance(tool_choice, Mapping) else "any"
        asked = _Asked(langchain_messages(messages, self._origin), tools, options)
        async with InTime(self._timeout) as spent:
            for again in (True, False):
                reading = await self._read(asked, choice, on_text)
                spent.usage += reading.answer.usage
                if not (again and reading.answer.says_nothing):
                    break
            whole = reading.finish()
        answer = answered(whole) if options.schema is not None else whole
        return ModelAnswer(signed(answer.message, self._origin), spent.usage, answer.finish_reason)

    async def _read(self, asked: _Asked, choice: Any, on_text: Callable[[str], None] | None) -> _Reading:
        """A streamed answer. If the provider refuses the request, it is asked once more without `tool_choice`."""
        kind = "none" if choice == "none" else "forced"
        reading = _Reading(asked.offered, on_text)
        if choice is None or not asked.tools or kind in self._refused:
            await self._stream(reading, asked, None)
            return reading
        try:
            await self._stream(reading, asked, choice)
        except ModelError as error:
            if not error.refusal or reading.answer.begun:
                raise
            reading = _Reading(asked.offered, on_text)
            await self._stream(reading, asked, None)
            self._refused |= {kind}
        return reading

    async def _stream(self, reading: _Reading, asked: _Asked, choice: Any) -> None:
        named = choice["function"]["name"] if isinstance(choice, Mapping) else choice
        try:
            model: Any = self._chat_model
            if asked.tools:
                chosen = {} if named is None else {"tool_choice": named}
                model = model.bind_tools([dict(tool) for tool in asked.tools], **chosen)
            chunks = model.astream(asked.messages, config={"callbacks": []}, **asked.keywords)
            async with aclosing(chunks):
                async for chunk in chunks:
                    reading.add(chunk)
            reading.end()
        except Exception as error:
            from moorline_agents.langchain_errors import langchain_error  # noqa: PLC0415 - when there is one

            ours = langchain_error(error)
            ours.usage = reading.answer.usage
            raise ours from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the chat model is asked."""

    messages: list[BaseMessage]
    tools: Sequence[Mapping[str, Any]]
    options: ModelOptions

    @property
    def offered(self) -> frozenset[str]:
        return frozenset(tool["function"]["name"] for tool in self.tools)

    @property
    def keywords(self) -> dict[str, Any]:
        options = self.options
        given = {
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "reasoning_effort": options.reasoning_effort,
        }
        return {name: value for name, value in given.items() if value is not None} | dict(options.extra_body)


class _Reading:
    """An answer as far as it has come."""

    def __init__(self, offered: frozenset[str], on_text: Callable[[str], None] | None) -> None:
        self.answer = AnswerStream(offered)
        self._on_text = on_text
        self._whole: AIMessageChunk | None = None

    def add(self, chunk: AIMessageChunk) -> None:
        self._whole = chunk if self._whole is None else self._whole + chunk
        delta: dict[str, Any] = {"content": str(chunk.text)}
        if chunk.tool_call_chunks:
            delta["tool_calls"] = [_call_part(cast("dict[str, Any]", part)) for part in chunk.tool_call_chunks]
        reason = next((found for name in _REASONS if (found := chunk.response_metadata.get(name))), None)
        self._tell(
            self.answer.add({"choices": [{"index": 0, "delta": delta, "finish_reason": _finish_reason(reason)}]})
        )

    def end(self) -> None:
        counts = None if self._whole is None else self._whole.usage_metadata
        if counts is not None:
            usage = {"prompt_tokens": counts["input_tokens"], "completion_tokens": counts["output_tokens"]}
            self.answer.add({"choices": [], "usage": usage})
        self._tell(self.answer.end())

    def finish(self) -> ModelAnswer:
        """The whole answer, with what only its provider understands of it. Raises `ModelError`."""
        answer = self.answer.finish(ended=True)
        extra = _extra(self._whole, answer.message)
        message: Message = {**answer.message, "extra": extra} if extra else answer.message
        return ModelAnswer(message, answer.usage, answer.finish_reason)

    def _tell(self, text: str) -> None:
        if text and self._on_text is not None:
            self._on_text(text)


def _call_part(part: Mapping[str, Any]) -> dict[str, Any]:
    index = part.get("index")
    function = {"name": part.get("name"), "arguments": part.get("args")}
    return {"index": index if isinstance(index, int) else None, "id": part.get("id"), "function": function}


def _finish_reason(reason: object) -> str | None:
    """The reason in the words of chat-completions servers."""
    if not isinstance(reason, str):
        return None
    word = reason.rpartition(".")[2].lower()
    return "length" if word in _CUT_OFF else "content_filter" if word in _FILTERED else word


def _extra(whole: AIMessageChunk | None, message: Message) -> dict[str, Any]:
    """What the provider may need back of an answer; nothing if its calls are not kept as the model made them."""
    if whole is None:
        return {}
    calls = message.get("tool_calls", ())
    made = [call["id"] for call in whole.tool_calls]
    if [call["id"] for call in calls] != made or any("refused" in call for call in calls):
        return {}
    other = {name: value for name, value in whole.additional_kwargs.items() if name != "tool_calls"}
    kept: dict[str, Any] = {"content": whole.content} if isinstance(whole.content, list) else {}
    kept |= {"additional_kwargs": other} if other else {}
    if not kept or objection(kept) is not None:
        return {}
    shown = ("model_provider", "output_version")  # by these LangChain knows whose the content is
    kept["response_metadata"] = {
        name: whole.response_metadata[name] for name in shown if name in whole.response_metadata
    }
    extra = {CONTENT: kept}
    bound([extra])
    return extra
