"""Following what LangChain's models and tools do in a graph, wherever in it they are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from moorline_agents.messages import Message, Usage
from moorline_agents.tracing import ModelSpan, ToolSpan, Tracing


class Follower(BaseCallbackHandler):
    """Has a span for each call of a model and of a tool. LangChain calls it in threads and tasks of its own, so that no
    span is a block, and what the call itself begins belongs to the agent's part."""

    run_inline = True

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._models: dict[UUID, ModelSpan] = {}
        self._tools: dict[UUID, ToolSpan] = {}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002 - as LangChain's
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        known = metadata or {}
        self._models[run_id] = self._tracing.model(
            str(known.get("ls_model_name", "")),
            provider=str(known.get("ls_provider", "langchain")),
            messages=_messages(messages[0]) if self._tracing.content else (),
        )

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        span = self._models.pop(run_id, None)
        if span is None:
            return
        for generation in response.generations[0]:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                answer = generation.message
                counted = answer.usage_metadata
                span.answered(
                    Usage(counted["input_tokens"], counted["output_tokens"]) if counted else Usage(),
                    finish_reason=answer.response_metadata.get("finish_reason"),
                    message=_messages([answer])[0] if self._tracing.content else None,
                )
        span.end()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        if (span := self._models.pop(run_id, None)) is not None:
            span.end(error)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        tool_call_id: str | None = None,
        **_: Any,
    ) -> None:
        arguments = ""
        if self._tracing.content:
            arguments = input_str if inputs is None else json.dumps(inputs, ensure_ascii=False, default=str)
        name = str(serialized.get("name", ""))
        self._tools[run_id] = self._tracing.tool(name, call_id=tool_call_id or "", arguments=arguments)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        if (span := self._tools.pop(run_id, None)) is not None:
            if self._tracing.content:
                span.returned(str(output.text if isinstance(output, ToolMessage) else output))
            span.end()

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        if (span := self._tools.pop(run_id, None)) is not None:
            span.end(error)


_follower: ContextVar[Follower | None] = ContextVar("moorline_follower", default=None)
register_configure_hook(_follower, inheritable=True)


@contextmanager
def following(tracing: Tracing) -> Iterator[None]:
    """While the block runs, models and tools are followed in the code that it calls and in the tasks and threads that
    it starts."""
    if not tracing.followed:
        yield
        return
    token = _follower.set(Follower(tracing))
    try:
        yield
    finally:
        _follower.reset(token)


def _messages(messages: Sequence[BaseMessage]) -> list[Message]:
    return cast("list[Message]", convert_to_openai_messages(list(messages)))
