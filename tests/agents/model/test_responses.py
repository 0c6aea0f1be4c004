"""OpenAI's Responses API: its streams are understood, and its reasoning goes back to where it came from only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model_errors import AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.model_options import AnswerSchema, ModelOptions
from tests.agents.model.responses_server import Event, ResponsesServer, call, message, reasoning, stream

SYSTEM: Message = {"role": "system", "content": "Be kind."}
ASKED: Message = {"role": "user", "content": "How much is it?"}
FUNCTION = {"name": "calculator", "description": "Calculates.", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
FINE = stream(message("fine"))
ARGUMENTS = '{"a":12,"b":7,"op":"add"}'


def result(answer: ModelAnswer, text: str = "19") -> list[Message]:
    calls = answer.message["tool_calls"]
    return [{"role": "tool", "tool_call_id": each["id"], "content": text} for each in calls]


async def test_text_is_shown_as_it_comes_and_tokens_are_counted_with_those_of_reasoning() -> None:
    server = ResponsesServer(stream(reasoning("c2Vj", "**Calculating**"), message("The result is 570.")))
    shown: list[str] = []
    answer = await server.model().complete([SYSTEM, ASKED], on_text=shown.append)
    assert len(shown) > 2
    assert "".join(shown) == answer.message["content"] == "The result is 570."
    assert answer.usage == Usage(75, 30)
    assert answer.finish_reason == "stop"


async def test_a_request_has_instructions_first_and_leaves_nothing_at_the_server() -> None:
    server = ResponsesServer(FINE)
    options = ModelOptions(
        temperature=0.5, max_tokens=99, reasoning_effort="low", extra_body={"reasoning": {"summary": "auto"}}
    )
    await server.model().complete([SYSTEM, ASKED], tools=[TOOL], tool_choice="none", options=options)
    assert server.requests == [
        {
            "model": "gpt-5.1",
            "store": False,
            "stream": True,
            "instructions": "Be kind.",
            "input": [{"role": "user", "content": "How much is it?"}],
            "tools": [{"type": "function", "strict": False, **FUNCTION}],
            "tool_choice": "none",
            "include": ["reasoning.encrypted_content"],
            "temperature": 0.5,
            "max_output_tokens": 99,
            "reasoning": {"effort": "low", "summary": "auto"},
        }
    ]


async def test_encrypted_reasoning_goes_back_in_its_place_to_the_model_that_it_came_from() -> None:
    calls = (reasoning("one", "Hm."), call("calculator", ARGUMENTS, "c1"), call("calculator", "{}", "c2"))
    spoken = (
        reasoning("two"),
        message("Wait.", phase="commentary"),
        reasoning("three"),
        call("calculator", "{}", "c3"),
    )
    server = ResponsesServer(stream(*calls), stream(*spoken), FINE, FINE)
    history = [SYSTEM, ASKED]
    for _ in range(2):
        answer = await server.model().complete(history, tools=[TOOL])
        assert answer.finish_reason == "tool_calls"
        history += [json.loads(json.dumps(answer.message)), *result(answer)]
    await server.model().complete(history, tools=[TOOL])
    secret = {"type": "reasoning", "summary": []}
    assert server.requests[-1]["input"] == [
        {"role": "user", "content": "How much is it?"},
        {**secret, "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "one"},
        {"type": "function_call", "call_id": "c1", "name": "calculator", "arguments": ARGUMENTS},
        {"type": "function_call", "call_id": "c2", "name": "calculator", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "19"},
        {"type": "function_call_output", "call_id": "c2", "output": "19"},
        {**secret, "encrypted_content": "two"},
        {"role": "assistant", "content": "Wait.", "phase": "commentary"},
        {**secret, "encrypted_content": "three"},
        {"type": "function_call", "call_id": "c3", "name": "calculator", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c3", "output": "19"},
    ]
    await server.model("another").complete(history, tools=[TOOL])
    assert not any(item.get("type") == "reasoning" for item in server.requests[-1]["input"])


async def test_reasoning_that_the_server_cannot_read_any_more_does_not_end_the_conversation() -> None:
    def objection(body: dict[str, Any]) -> str | None:
        given = any(item.get("type") == "reasoning" for item in body["input"])
        return "The encrypted content gAAA... could not be verified." if given else None

    server = ResponsesServer(stream(reasoning("one"), call("calculator", "{}")), FINE, FINE, objection=objection)
    model = server.model()
    answer = await model.complete([ASKED], tools=[TOOL])
    for _ in range(2):
        assert (await model.complete([ASKED, answer.message, *result(answer)])).message["content"] == "fine"
    assert len(server.requests) == 4


async def test_what_is_kept_of_reasoning_is_bounded() -> None:
    server = ResponsesServer(stream(reasoning("x" * 40_000), call("calculator", "{}", "c1")))
    answer = await server.model().complete([ASKED], tools=[TOOL])
    assert len(json.dumps(answer.message)) < 1_000


async def test_texts_of_several_items_are_told_apart() -> None:
    server = ResponsesServer(stream(message("One moment.", phase="commentary"), message("Done.", phase="final_answer")))
    shown: list[str] = []
    answer = await server.model().complete([ASKED], on_text=shown.append)
    assert "".join(shown) == answer.message["content"] == "One moment.\n\nDone."
    assert answer.message["extra"] == {"phase": "final_answer"}


async def test_a_refusal_is_what_the_model_has_to_say() -> None:
    server = ResponsesServer(stream(message("I cannot help with that.", refusal=True)))
    answer = await server.model().complete([ASKED])
    assert answer.message["content"] == "I cannot help with that."


@pytest.mark.parametrize("left_out", ["response.output_text.delta", "response.output_item.done"])
async def test_servers_that_leave_events_out_are_understood(left_out: str) -> None:
    events = stream(message("Hello!"), call("calculator", "{}"))
    server = ResponsesServer([event for event in events if event["type"] != left_out])
    answer = await server.model().complete([ASKED], tools=[TOOL])
    assert answer.message["content"] == "Hello!"
    assert [each["function"]["name"] for each in answer.message["tool_calls"]] == ["calculator"]


QUOTA = {
    "type": "insufficient_quota",
    "code": "insufficient_quota",
    "message": "You exceeded your quota.",
    "param": None,
}


def failed(**error: Any) -> list[Event]:
    return stream(status="failed", error={"message": "It failed.", **error})


@pytest.mark.parametrize(
    ("events", "words", "retryable", "about_request"),
    [
        (failed(code="server_error"), "middle of its answer", True, False),
        (failed(code="rate_limit_exceeded"), "middle of its answer", True, False),
        (failed(code="insufficient_quota"), "out of credit", False, False),
        (failed(code="invalid_prompt"), r"refused the request \(invalid_prompt\)", False, True),
        ([*FINE[:2], {"type": "error", "error": QUOTA}], "out of credit", False, False),
        ([*FINE[:2], {"type": "error", **{**QUOTA, "type": "error"}}], "out of credit", False, False),
        (FINE[:-1], "cut off", True, False),
        (FINE[:2], "sent no answer", False, False),
        (
            stream(message("Hel"), status="incomplete", incomplete_details={"reason": "content_filter"}),
            "content filter",
            False,
            True,
        ),
        (
            [{"type": "response.output_text.delta", "output_index": 0, "delta": 5}],
            "something that is not",
            False,
            False,
        ),
    ],
)
async def test_what_is_no_whole_answer_is_an_error_that_says_why(
    events: list[Event], words: str, *, retryable: bool, about_request: bool
) -> None:
    with pytest.raises(ModelError, match=words) as raised:
        await ResponsesServer(events).model().complete([ASKED])
    assert (raised.value.retryable, raised.value.about_request) == (retryable, about_request)


async def test_an_empty_answer_is_asked_for_once_more() -> None:
    server = ResponsesServer(stream(reasoning("one")), FINE)
    answer = await server.model().complete([ASKED])
    assert answer.message["content"] == "fine"
    assert answer.usage == Usage(150, 60)


async def test_limits_of_length_have_errors_of_their_own() -> None:
    short = stream(message("Hel"), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    with pytest.raises(AnswerCutOff) as cut_off:
        await ResponsesServer(short).model().complete([ASKED])
    assert cut_off.value.usage == Usage(75, 30)
    with pytest.raises(ContextOverflow):
        await ResponsesServer(failed(code="context_length_exceeded")).model().complete([ASKED])


VISIT = AnswerSchema(name="Visit", schema={"type": "object", "properties": {"day": {"type": "string"}}})


async def test_an_answer_that_has_to_fit_a_schema_is_asked_for_by_the_servers_mode_or_else_by_a_tool() -> None:
    def objection(body: dict[str, Any]) -> str | None:
        return "Unsupported parameter: 'text.format' of type json_schema" if "format" in body.get("text", {}) else None

    by_mode = ResponsesServer(stream(message('{"day":"Monday"}')))
    by_tool = ResponsesServer(stream(call("final_answer", '{"day":"Monday"}')), objection=objection)
    for server in (by_mode, by_tool):
        answer = await server.model().complete([ASKED], options=ModelOptions(schema=VISIT))
        assert answer.message == {"role": "assistant", "content": '{"day":"Monday"}'}
    wanted = by_mode.requests[0]["text"]["format"]
    assert (wanted["type"], wanted["name"], wanted["strict"]) == ("json_schema", "Visit", True)
    assert by_tool.requests[-1]["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("words", "parameter"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("Unsupported parameter: 'reasoning.effort' is not supported with this model.", "reasoning"),
        ("Encrypted content is not supported with this model.", "include"),
    ],
)
async def test_what_a_server_refuses_is_left_out_from_then_on(words: str, parameter: str) -> None:
    server = ResponsesServer(FINE, FINE, objection=lambda body: words if parameter in body else None)
    model = server.model()
    for _ in range(2):
        await model.complete([ASKED], options=ModelOptions(temperature=0, reasoning_effort="low"))
    assert len(server.requests) == 3


async def test_pictures_and_files_are_sent_as_the_api_has_them() -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
    ]
    server = ResponsesServer(FINE)
    await server.model().complete([{"role": "user", "content": parts}])
    assert server.requests[0]["input"][0]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="},
    ]
