"""Streams of chat-completions servers as the providers publish them, whole, with every field that they send.

OpenAI's text is from https://platform.openai.com/docs/api-reference/chat-streaming, its call from
https://platform.openai.com/docs/guides/function-calling#streaming, and the last chunk with `include_usage` as its
reference describes it. Azure's first chunk is as it was recorded for github.com/llamastack/llama-stack
(tests/integration/recordings), and DeepSeek's reasoning as https://api-docs.deepseek.com/guides/reasoning_model has it.
Streams of the Responses API are in `test_responses`, those of Anthropic and Google in `test_langchain`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from moorline.testing import RawReply, Script
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import ChatModel
from moorline_agents.transport import rule_client

ASKED: list[Message] = [{"role": "user", "content": "What's the weather like in Paris today?"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
NAMED = {
    "id": "chatcmpl-123",
    "object": "chat.completion.chunk",
    "created": 1694268190,
    "model": "gpt-4o-mini",
    "system_fingerprint": "fp_44709d6fcb",
}
USAGE: dict[str, Any] = {
    **NAMED,
    "choices": [],
    "usage": {
        "prompt_tokens": 82,
        "completion_tokens": 17,
        "total_tokens": 99,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0},
    },
}


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {**NAMED, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def called() -> Iterator[dict[str, Any]]:
    first = {"arguments": "", "name": "get_weather"}
    part = {"index": 0, "id": "call_DdmO9pD3xa9XTPNJ32zg2hcA", "function": first, "type": "function"}
    yield chunk({"role": "assistant", "content": None, "tool_calls": [part], "refusal": None})
    for arguments in ('{"', "location", '":"', "Paris", ",", " France", '"}'):
        part = {"index": 0, "id": None, "function": {"arguments": arguments, "name": None}, "type": None}
        yield chunk({"tool_calls": [part]})
    yield chunk({}, "tool_calls")


async def answer_of(*chunks: dict[str, Any]) -> tuple[ModelAnswer, str]:
    """The answer, and what was shown of it."""
    pieces = (*(f"data: {json.dumps(each)}\n\n".encode() for each in chunks), b"data: [DONE]\n\n")
    reply = RawReply(headers={"content-type": "text/event-stream; charset=utf-8"}, pieces=pieces)
    model = ChatModel(client=rule_client(Script(reply)).with_options(max_retries=0), model="m", timeout=30)
    shown: list[str] = []
    answer = await model.complete(ASKED, tools=[WEATHER], on_text=shown.append)
    return answer, "".join(shown)


async def test_openais_text() -> None:
    begun = chunk({"role": "assistant", "content": ""})
    answer, shown = await answer_of(begun, chunk({"content": "Hello"}), chunk({}, "stop"), USAGE)
    assert (answer.message["content"], shown, answer.finish_reason) == ("Hello", "Hello", "stop")
    assert answer.usage == Usage(82, 17)


async def test_openais_call() -> None:
    answer, shown = await answer_of(*called(), USAGE)
    (call,) = answer.message["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("call_DdmO9pD3xa9XTPNJ32zg2hcA", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"location": "Paris, France"}
    assert (shown, answer.finish_reason, answer.usage) == ("", "tool_calls", Usage(82, 17))


async def test_azures_first_chunk_has_no_choices() -> None:
    filtered = [{"prompt_index": 0, "content_filter_results": {}}]
    first = {"id": "", "choices": [], "created": 0, "model": "", "object": "", "prompt_filter_results": filtered}
    answer, _ = await answer_of(first, *called(), USAGE)
    assert [call["function"]["name"] for call in answer.message["tool_calls"]] == ["get_weather"]


async def test_deepseeks_reasoning_is_not_shown() -> None:
    thought = ({"content": None, "reasoning_content": word} for word in ("Okay", ", the", " user"))
    said = ({"content": word, "reasoning_content": None} for word in ("It is", " sunny."))
    answer, shown = await answer_of(*map(chunk, (*thought, *said)), chunk({"content": ""}, "stop"), USAGE)
    assert answer.message["content"] == shown == "It is sunny."
