"""The OpenAI path with the default client, whose network respx mocks."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx  # which is httpx2, see conftest.py
import pytest
import respx

from moorline_agents.messages import Message, Usage
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

URL = "https://models.test/v1/chat/completions"
QUESTION: list[Message] = [{"role": "user", "content": "Hello?"}]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
DONE = b"data: [DONE]\n\n"
SOON = {"retry-after-ms": "1"}


def sse(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + DONE


def delta(**content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


def end(reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def call(index: int, **content: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, **content}])


def streamed(content: bytes | AsyncIterator[bytes]) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)


HELLO = sse(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo!"), end())


@pytest.fixture
def network() -> Iterator[respx.MockRouter]:
    with respx.mock() as router:
        yield router


def model(**options: Any) -> ChatModel:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="test", base_url="https://models.test/v1", **options)
    return ChatModel(client=client, model="some-model", timeout=30)


async def test_text_is_streamed_and_put_together(network: respx.MockRouter) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}
    body = sse(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo!"), end(), usage)
    network.post(URL).mock(return_value=streamed(body))
    shown: list[str] = []

    answer = await model().complete(QUESTION, on_text=shown.append)

    assert shown == ["Hel", "lo!"]
    assert answer.message == {"role": "assistant", "content": "Hello!"}
    assert answer.usage == Usage(7, 2)


async def test_a_long_history_costs_hardly_more_than_a_short_one(network: respx.MockRouter) -> None:
    network.post(URL).mock(side_effect=lambda _: streamed(HELLO))
    asked = model()
    long: list[Message] = [*QUESTION, {"role": "assistant", "content": "Hello!"}] * 40

    async def processor_time(messages: list[Message]) -> float:
        began = time.process_time()
        await asked.complete([*messages, *QUESTION], tools=[TOOL])
        return time.process_time() - began

    times = [(await processor_time(long), await processor_time(QUESTION)) for _ in range(20)]
    assert min(longer for longer, _ in times) < 3 * min(shorter for _, shorter in times)


async def test_text_arrives_before_the_stream_ends(network: respx.MockRouter) -> None:
    shown: list[str] = []
    shown_before_the_end: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield sse(delta(content="Hel")).removesuffix(DONE)
        yield sse(delta(content="lo!")).removesuffix(DONE)
        shown_before_the_end.extend(shown)
        yield sse(end())

    network.post(URL).mock(return_value=streamed(body()))
    await model().complete(QUESTION, on_text=shown.append)
    assert shown_before_the_end == ["Hel", "lo!"]


async def test_the_request_asks_for_a_stream_with_usage(network: respx.MockRouter) -> None:
    route = network.post(URL).mock(return_value=streamed(HELLO))
    await model().complete(QUESTION)
    await model().complete(QUESTION, tools=[TOOL], tool_choice="none")

    first, second = (json.loads(sent.request.content) for sent in route.calls)
    assert first == {
        "model": "some-model",
        "messages": QUESTION,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert second["tools"] == [TOOL]
    assert second["tool_choice"] == "none"


async def test_tool_calls_are_put_together_from_their_pieces(network: respx.MockRouter) -> None:
    body = sse(
        delta(role="assistant", content=None),
        call(0, id="call_a", type="function", function={"name": "find", "arguments": ""}),
        call(0, function={"arguments": '{"day"'}),
        call(1, id="call_b", type="function", function={"name": "book", "arguments": ""}),
        call(0, function={"arguments": ': "2026-11-23"}'}),
        call(1, function={"arguments": '{"x": 1}'}),
        end("tool_calls"),
    )
    network.post(URL).mock(return_value=streamed(body))

    answer = await model().complete(QUESTION, tools=[TOOL])

    first = {"name": "find", "arguments": '{"day": "2026-11-23"}'}
    second = {"name": "book", "arguments": '{"x": 1}'}
    assert answer.message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": first},
            {"id": "call_b", "type": "function", "function": second},
        ],
    }


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_or_failing_server_is_asked_again(network: respx.MockRouter, status: int) -> None:
    failed = httpx.Response(status, headers=SOON, json={"error": {"message": "later"}})
    route = network.post(URL).mock(side_effect=[failed, failed, streamed(HELLO)])
    answer = await model().complete(QUESTION)
    assert answer.message["content"] == "Hello!"
    assert route.call_count == 3


@pytest.mark.parametrize("status", [429, 500])
async def test_retries_end_and_the_error_is_retryable(network: respx.MockRouter, status: int) -> None:
    failed = httpx.Response(status, headers=SOON, json={"error": {"message": "later"}})
    route = network.post(URL).mock(return_value=failed)
    with pytest.raises(ModelError, match=f"Wait a little .*HTTP {status}") as raised:
        await model(max_retries=1).complete(QUESTION)
    assert raised.value.retryable
    assert route.call_count == 2


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "context_length_exceeded", "too long for the model"),
        (400, None, r"refused the request \(HTTP 400\)\.$"),
        (401, "invalid_api_key", "Check OPENAI_API_KEY"),
        (403, None, "OPENAI_API_KEY may use OPENAI_MODEL"),
        (404, "model_not_found", "Check OPENAI_MODEL"),
        (413, None, "Show it fewer messages"),
        (429, "insufficient_quota", "plan and billing"),
    ],
)
async def test_a_refusal_says_what_to_do_and_is_not_retryable(
    network: respx.MockRouter, status: int, code: str | None, remedy: str
) -> None:
    error = {"error": {"message": "quotes the conversation: Hello?", "code": code}}
    network.post(URL).mock(return_value=httpx.Response(status, json=error))
    with pytest.raises(ModelError, match=remedy) as raised:
        await model(max_retries=0).complete(QUESTION)
    assert not raised.value.retryable
    assert "Hello?" not in str(raised.value)


async def test_a_server_that_cannot_be_reached(network: respx.MockRouter) -> None:
    network.post(URL).mock(side_effect=httpx.ConnectError)
    with pytest.raises(ModelError, match="Check the network, and OPENAI_BASE_URL") as raised:
        await model(max_retries=0).complete(QUESTION)
    assert raised.value.retryable


@pytest.mark.parametrize("phase", [httpx.ConnectTimeout, httpx.ReadTimeout])
async def test_a_server_that_is_silent(network: respx.MockRouter, phase: type[httpx.TimeoutException]) -> None:
    network.post(URL).mock(side_effect=phase)
    with pytest.raises(ModelError, match="did not answer in time") as raised:
        await model(max_retries=0).complete(QUESTION)
    assert raised.value.retryable


async def test_a_stream_that_falls_silent(network: respx.MockRouter) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield sse(delta(content="Hel")).removesuffix(DONE)
        raise httpx.ReadTimeout("no more")

    route = network.post(URL).mock(return_value=streamed(body()))
    with pytest.raises(ModelError, match="did not answer in time") as raised:
        await model().complete(QUESTION)
    assert raised.value.retryable
    assert route.call_count == 1  # asking again could not take back what was shown


async def test_a_connection_lost_in_the_middle(network: respx.MockRouter) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield sse(delta(content="Hel")).removesuffix(DONE)
        raise httpx.RemoteProtocolError("peer closed connection")

    network.post(URL).mock(return_value=streamed(body()))
    with pytest.raises(ModelError, match="cannot be reached") as raised:
        await model().complete(QUESTION)
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("body", "message", "retryable"),
    [
        pytest.param(b"", "sent no answer", False, id="empty body"),
        pytest.param(b"<html>a login page</html>", "sent no answer", False, id="a web page"),
        pytest.param(DONE, "sent no answer", False, id="only the end mark"),
        pytest.param(sse({"choices": []}), "sent no answer", False, id="no choices"),
        pytest.param(sse({}), "sent no answer", False, id="an empty chunk"),
        pytest.param(b"data: {nope\n\n", "not a chat-completions stream", False, id="no JSON"),
        pytest.param(b"data: 42\n\n", "not a chat-completions stream", False, id="a number"),
        pytest.param(b"data: [[]]\n\n", "not a chat-completions stream", False, id="a list"),
        pytest.param(b"data: " + b"[" * 9999 + b"\n\n", "not a chat-completions", False, id="too deep"),
        pytest.param(b"data: \xff\xfe\n\n", "not a chat-completions stream", False, id="no UTF-8"),
        pytest.param(sse({"choices": "x"}), "not a chat-completions stream", False, id="choices are text"),
        pytest.param(sse({"choices": [7]}), "not a chat-completions stream", False, id="a choice is a number"),
        pytest.param(sse(delta(content=5)), "not a chat-completions stream", False, id="text is a number"),
        pytest.param(sse(delta(tool_calls="x")), "not a chat-completions stream", False, id="calls are text"),
        pytest.param(sse(delta(content="Hel")).removesuffix(DONE), "cut off", True, id="no finish reason, no end mark"),
        pytest.param(sse(delta(content="Hel"), delta(content="lo"))[:-20], "cut off", True, id="cut in a chunk"),
        pytest.param(sse(end()), "gave an empty answer", True, id="nothing said"),
        pytest.param(sse(delta(content=" \n"), end()), "gave an empty answer", True, id="only spaces"),
        pytest.param(sse(end("tool_calls")), "gave an empty answer", True, id="calls announced, none made"),
        pytest.param(sse(delta(content="Hel"), end("length")), "length limit", False, id="too long"),
        pytest.param(sse(delta(content="Hel"), end("content_filter")), "filter", False, id="filtered"),
        pytest.param(
            sse(call(0, id="a", function={"arguments": "{}"}), end("tool_calls")),
            "without naming it",
            True,
            id="a call without a name",
        ),
        pytest.param(
            sse(call(0, id="a", function={"name": "find", "arguments": '{"da'}), end("length")),
            "length limit",
            False,
            id="half a call",
        ),
        pytest.param(sse({"error": {"message": "overloaded"}}), "middle of its answer", True, id="an error"),
        pytest.param(
            sse(delta(content="Hel"), {"error": {"message": "m", "code": "context_length_exceeded"}}),
            "too long for the model",
            False,
            id="an error with a code",
        ),
    ],
)
async def test_garbage_is_never_taken_for_an_answer(
    network: respx.MockRouter, body: bytes, message: str, retryable: bool
) -> None:
    network.post(URL).mock(return_value=streamed(body))
    with pytest.raises(ModelError, match=message) as raised:
        await model().complete(QUESTION)
    assert raised.value.retryable is retryable


async def test_a_refusal_of_the_model_is_its_answer(network: respx.MockRouter) -> None:
    network.post(URL).mock(return_value=streamed(sse(delta(refusal="I would "), delta(refusal="rather not."), end())))
    answer = await model().complete(QUESTION)
    assert answer.message["content"] == "I would rather not."


async def test_a_call_that_no_tool_fits_is_passed_on(network: respx.MockRouter) -> None:
    body = sse(call(0, id="a", function={"name": "no_such_tool", "arguments": '{"a": 1}'}), end("tool_calls"))
    network.post(URL).mock(return_value=streamed(body))
    answer = await model().complete(QUESTION, tools=[TOOL])
    assert answer.message["tool_calls"][0]["function"] == {"name": "no_such_tool", "arguments": '{"a": 1}'}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            sse(
                call(0, id="a", function={"name": "find", "arguments": "{}"}),
                call(0, id="b", function={"name": "book", "arguments": ""}),
                end("stop"),
            ),
            id="every call numbered 0",
        ),
        pytest.param(
            sse(
                delta(tool_calls=[{"id": "a", "function": {"name": "find", "arguments": ""}}]),
                delta(tool_calls=[{"function": {"arguments": "{}"}}]),
                delta(tool_calls=[{"id": "b", "function": {"name": "book"}}]),
                end("tool_calls"),
            ),
            id="no numbers",
        ),
        pytest.param(
            sse(
                call(0, id="a", function={"name": "find"}),
                call(1, id="a", function={"name": "book"}),
                end("tool_calls"),
            ),
            id="one ID twice",
        ),
        pytest.param(
            sse(call(0, function={"name": "find"}), call(1, function={"name": "book"}), end("tool_calls")),
            id="no IDs",
        ),
    ],
)
async def test_calls_of_careless_servers_are_told_apart(network: respx.MockRouter, body: bytes) -> None:
    network.post(URL).mock(return_value=streamed(body))
    calls = (await model().complete(QUESTION, tools=[TOOL])).message["tool_calls"]
    assert [made["function"] for made in calls] == [
        {"name": "find", "arguments": "{}"},
        {"name": "book", "arguments": "{}"},
    ]
    assert len({made["id"] for made in calls if made["id"]}) == 2


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("its own"), httpx.ReadTimeout("its own")])
async def test_what_the_listener_raises_is_not_taken_for_a_failure_of_the_model(
    network: respx.MockRouter, error: Exception
) -> None:
    def listener(text: str) -> None:
        raise error

    network.post(URL).mock(return_value=streamed(HELLO))
    with pytest.raises(type(error), match="its own"):
        await model().complete(QUESTION, on_text=listener)
