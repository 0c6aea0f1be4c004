"""Any LangChain chat model: OpenAI's and Anthropic's packages against a server of ours, others by their chunks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.exceptions import ContextOverflowError, ModelAPIError, ModelAuthenticationError, ModelTimeoutError
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import Field

from moorline.testing import Call, ModelReply, Script, error_reply
from moorline_agents.langchain_model import LangChainModel
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model_errors import AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.model_options import AnswerSchema, ModelOptions
from moorline_agents.transport import Reply, RuleTransport

SYSTEM: Message = {"role": "system", "content": "Be kind."}
ASKED: Message = {"role": "user", "content": "Anything free?"}
FIND = {"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}}
FORCED = {"type": "function", "function": {"name": "find"}}
PICTURE: Any = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
]


def results(answer: ModelAnswer) -> list[Message]:
    calls = answer.message["tool_calls"]
    return [{"role": "tool", "tool_call_id": call["id"], "content": '{"free": 3}'} for call in calls]


def openai(*replies: Reply | str) -> tuple[LangChainModel, Script]:
    script = Script(*replies)
    client = httpx2.AsyncClient(transport=RuleTransport(script), trust_env=False)
    given: dict[str, Any] = {"model": "m", "api_key": "k", "base_url": "http://m.invalid/v1", "max_retries": 0}
    chat = ChatOpenAI(http_async_client=client, stream_usage=True, **given)
    return LangChainModel(chat), script


async def test_openais_package_streams_calls_and_counts() -> None:
    called = ModelReply(text="One moment.", calls=(Call(name="find", arguments={"day": 1}),), usage=Usage(7, 3))
    model, script = openai(called, "Yes, at nine.")
    shown: list[str] = []
    first = await model.complete([SYSTEM, ASKED], tools=[FIND], on_text=shown.append)
    assert "".join(shown) == first.message["content"] == "One moment."
    assert first.message["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"day": 1}'}
    assert (first.usage, first.finish_reason) == (Usage(7, 3), "tool_calls")
    second = await model.complete([SYSTEM, ASKED, first.message, *results(first)], tools=[FIND])
    assert second.message == {"role": "assistant", "content": "Yes, at nine."}
    assert [message["role"] for message in script.requests[1].messages] == ["system", "user", "assistant", "tool"]
    assert (model.name, model.provider) == ("m", "openai-chat")


async def test_options_a_forced_call_and_a_schema_reach_the_server() -> None:
    model, script = openai(
        ModelReply(calls=(Call(name="find"),)), ModelReply(calls=(Call(name="final_answer", arguments={"day": "Mo"}),))
    )
    await model.complete([ASKED], tools=[FIND], tool_choice=FORCED, options=ModelOptions(temperature=0, max_tokens=9))
    assert script.requests[0].tool_choice == FORCED
    assert script.requests[0].options.items() >= {"temperature": 0, "max_completion_tokens": 9}.items()
    visit = AnswerSchema(name="Visit", schema={"type": "object", "properties": {"day": {"type": "string"}}})
    answer = await model.complete([ASKED], options=ModelOptions(schema=visit))
    assert answer.message == {"role": "assistant", "content": '{"day": "Mo"}'}
    assert script.requests[1].tool_choice == "required"


async def test_a_choice_that_a_provider_refuses_is_left_out_from_then_on() -> None:
    fine = ModelReply(text="fine")
    model, script = openai(error_reply(400), fine, fine)
    for _ in range(2):
        await model.complete([ASKED], tools=[FIND], tool_choice="none")
    assert [request.tool_choice for request in script.requests] == ["none", None, None]


async def test_pictures_are_translated_by_the_package() -> None:
    model, script = openai("a dog")
    await model.complete([{"role": "user", "content": PICTURE}])
    assert script.requests[0].messages[0]["content"] == PICTURE


@pytest.mark.parametrize(
    ("status", "words", "retryable", "about_request"),
    [
        (401, "refused the key", False, False),
        (404, "does not know the model", False, False),
        (429, "too much to do", True, False),
        (500, "is failing", True, False),
        (400, r"refused the request \(HTTP 400\)", False, True),
    ],
)
async def test_a_providers_error_is_a_model_error(
    status: int, words: str, *, retryable: bool, about_request: bool
) -> None:
    model, _ = openai(error_reply(status))
    with pytest.raises(ModelError, match=words) as raised:
        await model.complete([ASKED])
    assert (raised.value.retryable, raised.value.about_request) == (retryable, about_request)
    assert bool(raised.value.refusal) == (status in (400, 500))


# Anthropic's streams as https://docs.anthropic.com/en/docs/build-with-claude/streaming shows them, and as they were
# recorded for github.com/vercel/ai (packages/anthropic/src/__fixtures__).
THINKING: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": "claude-test",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 472, "output_tokens": 2},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "look."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQBCgIYAhIM"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Okay"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": ", one moment."}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_01", "name": "find", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"day":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": " 1}"}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"input_tokens": 472, "output_tokens": 89},
    },
    {"type": "message_stop"},
]


def ending(reason: str) -> list[dict[str, Any]]:
    """The text of that stream alone, and why it ends."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [THINKING[0], *THINKING[7:11], {**THINKING[-2], "delta": delta}, THINKING[-1]]


@asynccontextmanager
async def anthropic(*streams: Sequence[dict[str, Any]]) -> AsyncIterator[tuple[LangChainModel, list[dict[str, Any]]]]:
    """Anthropic's package in front of a server that answers with these streams, and the requests that it got."""
    left, requests = list(streams), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        requests.append(json.loads(await reader.readexactly(length)))
        told = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in left.pop(0))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        writer.write(head + told.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given: dict[str, Any] = {"model": "claude-test", "api_key": "k", "max_retries": 0, "max_tokens": 2_000}
    chat = ChatAnthropic(base_url=f"http://127.0.0.1:{port}", **given)
    async with server:
        yield LangChainModel(chat), requests


async def test_anthropics_thinking_goes_back_with_its_signature_to_the_model_that_thought() -> None:
    async with anthropic(THINKING, ending("end_turn")) as (model, requests):
        shown: list[str] = []
        first = await model.complete([SYSTEM, ASKED], tools=[FIND], on_text=shown.append)
        assert "".join(shown) == first.message["content"] == "Okay, one moment."
        assert first.message["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"day": 1}'}
        assert (first.usage, first.finish_reason) == (Usage(472, 89), "tool_use")
        stored = json.loads(json.dumps(first.message))
        await model.complete([SYSTEM, ASKED, stored, *results(first)], tools=[FIND])
    told, called = requests[1]["messages"][1:]
    assert [block["type"] for block in told["content"]] == ["thinking", "text", "tool_use"]
    assert told["content"][0]["signature"] == "EqQBCgIYAhIM"
    assert told["content"][2]["input"] == {"day": 1}
    assert called["content"][0]["tool_use_id"] == "toolu_01"
    other, script = openai("fine")
    await other.complete([SYSTEM, ASKED, stored, *results(first)], tools=[FIND])
    assert "EqQBCgIYAhIM" not in json.dumps(script.requests[0].messages)


async def test_an_answer_that_was_cut_off_or_held_back_is_none() -> None:
    async with anthropic(ending("max_tokens"), ending("refusal")) as (model, _):
        with pytest.raises(AnswerCutOff):
            await model.complete([ASKED])
        with pytest.raises(ModelError, match="content filter"):
            await model.complete([ASKED])


class Streaming(GenericFakeChatModel):
    """LangChain's own fake, with chunks as a package makes them."""

    chunks: list[Any]
    asked: list[Any] = Field(default_factory=list)

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    async def _astream(self, messages: Any, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        self.asked.append(messages)
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield ChatGenerationChunk(message=chunk)


def of(*chunks: AIMessageChunk | Exception) -> LangChainModel:
    return LangChainModel(Streaming(messages=iter(()), chunks=list(chunks)), timeout=5)


def gemini() -> list[AIMessageChunk]:
    """As langchain-google-genai emits a stream: whole calls without an index, signatures beside them, and in its last
    chunk the reason (github.com/langchain-ai/langchain-google, libs/genai/langchain_google_genai/chat_models.py)."""
    calls = [
        tool_call_chunk(name="find", args='{"day": 1}', id="a1"),
        tool_call_chunk(name="find", args='{"day": 2}', id="a2"),
    ]
    signatures = {"__gemini_function_call_thought_signatures__": {"a1": "c2ln"}}
    shown = {"model_provider": "google_genai"}
    return [
        AIMessageChunk(content=[{"type": "thinking", "thinking": "Hm", "index": 0}], response_metadata=shown),
        AIMessageChunk(
            content=[{"type": "text", "text": "Two days."}], tool_call_chunks=calls[:1], additional_kwargs=signatures
        ),
        AIMessageChunk(
            content="",
            tool_call_chunks=calls[1:],
            response_metadata={"finish_reason": "STOP"},
            usage_metadata={"input_tokens": 18, "output_tokens": 5, "total_tokens": 23},
        ),
    ]


async def test_googles_chunks_are_two_calls_and_its_signatures_go_back() -> None:
    model = of(*gemini())
    answer = await model.complete([ASKED], tools=[FIND])
    assert answer.message["content"] == "Two days."
    assert [call["function"]["arguments"] for call in answer.message["tool_calls"]] == ['{"day": 1}', '{"day": 2}']
    assert answer.usage == Usage(18, 5)
    stored = json.loads(json.dumps(answer.message))
    await model.complete([ASKED, stored, *results(answer)], tools=[FIND])
    chat = model._chat_model
    assert isinstance(chat, Streaming)
    sent = chat.asked[-1][1]
    assert sent.additional_kwargs == gemini()[1].additional_kwargs
    assert [call["args"] for call in sent.tool_calls] == [{"day": 1}, {"day": 2}]


async def test_an_empty_answer_is_asked_for_again_and_both_are_counted() -> None:
    cost: Any = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    nothing = AIMessageChunk(content="", usage_metadata=cost, response_metadata={"finish_reason": "stop"})
    with pytest.raises(ModelError, match="empty") as raised:
        await of(nothing).complete([ASKED])
    assert raised.value.usage == Usage(6, 2)


async def test_a_model_that_does_not_stream_answers_at_once() -> None:
    whole = AIMessage(content="Hello!", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
    shown: list[str] = []
    model = LangChainModel(GenericFakeChatModel(messages=iter([whole])))
    answer = await model.complete([ASKED], on_text=shown.append)
    assert "".join(shown) == answer.message["content"] == "Hello!"


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ContextOverflowError("too long"), ContextOverflow, False),
        (ModelAuthenticationError("no"), ModelError, False),
        (ModelAPIError("busy"), ModelError, True),
        (ModelTimeoutError("slow"), ModelError, True),
        (ConnectionResetError("gone"), ModelError, True),
        (TypeError("unexpected keyword argument 'top_k'"), ModelError, False),
        (KeyError("odd"), ModelError, False),
    ],
)
async def test_whatever_a_package_raises_is_a_model_error(
    error: Exception, kind: type[ModelError], *, retryable: bool
) -> None:
    with pytest.raises(kind) as raised:
        await of(error).complete([ASKED])
    assert type(raised.value) is kind
    assert raised.value.retryable == retryable


async def test_an_answer_takes_no_longer_than_it_may() -> None:
    class Slow(Streaming):
        async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
            await asyncio.sleep(60)
            yield ChatGenerationChunk(message=AIMessageChunk(content="late"))

    with pytest.raises(ModelError, match=r"no whole answer within 0\.05 s"):
        await LangChainModel(Slow(messages=iter(()), chunks=[]), timeout=0.05).complete([ASKED])
