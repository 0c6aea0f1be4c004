"""Options reach the model's server in the words that it takes; what it refuses it is asked without."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from moorline.testing import Call, ModelReply, ModelRequest, RawReply, rule_client
from moorline_agents.agent import Agent
from moorline_agents.answer_schema import ANSWER, strict_schema
from moorline_agents.messages import Message
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ModelError
from moorline_agents.model_options import AnswerSchema, ModelOptions
from moorline_agents.transport import Reply

ASKED: list[Message] = [{"role": "user", "content": "Is the temperature right for max_tokens?"}]
FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
VISIT = AnswerSchema(
    name="Visit",
    schema={
        "type": "object",
        "properties": {
            "day": {"type": "string"},
            "who": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}], "default": None},
        },
        "required": ["day"],
        "$defs": {"Person": {"type": "object", "properties": {"default": {"type": "string", "default": "Ana"}}}},
    },
)
GIVEN = ModelOptions(temperature=0.2, max_tokens=300, reasoning_effort="low", extra_body={"top_k": 5})

Objection = Callable[[ModelRequest], str | None]


class Server:
    """Answers in the mode that it was asked for, unless it objects."""

    def __init__(self, *objections: Objection) -> None:
        self._objections = objections
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Reply:
        self.requests.append(request)
        for objection in self._objections:
            if words := objection(request):
                body = {"error": {"message": words, "type": "invalid_request_error"}}
                kind = {"content-type": "application/json"}
                return RawReply(status=400, headers=kind, pieces=(json.dumps(body).encode(),))
        if ANSWER in request.functions and request.tool_choice == "required":
            return ModelReply(calls=(Call(name=ANSWER, arguments={"day": "Monday"}),))
        return ModelReply(text='{"day": "Monday"}' if "response_format" in request.options else "fine")


def model(rules: Any) -> ChatModel:
    return ChatModel(client=rule_client(rules).with_options(max_retries=0), model="m", timeout=30)


def sent(request: ModelRequest) -> dict[str, Any]:
    return {name: value for name, value in request.options.items() if name != "stream_options"}


def refuses(name: str, words: str) -> Objection:
    return lambda request: words if name in request.options else None


def not_strict(request: ModelRequest) -> str | None:
    strict = request.options.get("response_format", {}).get("json_schema", {}).get("strict")
    return "Invalid schema for response_format 'Visit': 'minLength' is not permitted." if strict else None


NO_TEMPERATURE = refuses("temperature", "Unsupported parameter: 'temperature' is not supported with this model.")
NO_MAX_TOKENS = refuses(
    "max_tokens",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
)
NO_LIMIT = refuses("max_completion_tokens", "Extra inputs are not permitted: max_completion_tokens")
NO_EFFORT = refuses("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort")
NO_MODE = refuses("response_format", "This response_format type is unavailable now")


async def test_options_are_sent_as_openai_names_them_and_none_if_there_are_none() -> None:
    server = Server()
    for options in (GIVEN, None, ModelOptions()):
        await model(server).complete(ASKED, options=options)
    given = {"temperature": 0.2, "max_tokens": 300, "reasoning_effort": "low", "top_k": 5}
    assert [sent(request) for request in server.requests] == [given, {}, {}]


@pytest.mark.parametrize(
    ("objections", "left", "lost"),
    [
        ([NO_TEMPERATURE], {"max_tokens": 300, "reasoning_effort": "low", "top_k": 5}, ["temperature"]),
        ([NO_EFFORT], {"temperature": 0.2, "max_tokens": 300, "top_k": 5}, ["reasoning_effort"]),
        (
            [NO_MAX_TOKENS],
            {"temperature": 0.2, "max_completion_tokens": 300, "reasoning_effort": "low", "top_k": 5},
            [],
        ),
        (
            [NO_MAX_TOKENS, NO_LIMIT, NO_EFFORT, NO_TEMPERATURE],
            {"top_k": 5},
            ["max_completion_tokens", "reasoning_effort", "temperature"],
        ),
    ],
)
async def test_what_a_server_refuses_is_left_out_from_then_on_and_that_is_logged_once(
    objections: list[Objection], left: dict[str, Any], lost: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(*objections)
    chat = model(server)
    with caplog.at_level(logging.WARNING, "moorline.model"):
        for _ in range(3):
            await chat.complete(ASKED, options=GIVEN)
    assert len(server.requests) == 3 + len(objections)
    assert [sent(request) for request in server.requests[-3:]] == [left] * 3
    assert caplog.messages == [f"The server of model m does not take {name}; it does without." for name in lost]


@pytest.mark.parametrize(
    "words",
    [
        "temperature must be between 0 and 1",
        "max_tokens is too large: 300. This model supports at most 256 completion tokens",
        "top_k is not supported",
    ],
)
async def test_a_value_that_is_wrong_is_an_error_and_not_left_out(words: str) -> None:
    server = Server(lambda _: words)
    with pytest.raises(ModelError, match="refused the request"):
        await model(server).complete(ASKED, options=GIVEN)
    assert len(server.requests) == 1


async def test_a_server_with_a_mode_for_schemas_is_held_to_the_strict_form() -> None:
    server = Server()
    answer = await model(server).complete(ASKED, tools=[FIND], options=ModelOptions(schema=VISIT))
    wanted = sent(server.requests[0])["response_format"]["json_schema"]
    assert (wanted["name"], wanted["strict"]) == ("Visit", True)
    assert wanted["schema"]["required"] == ["day", "who"]
    assert wanted["schema"]["$defs"]["Person"]["properties"] == {"default": {"type": "string"}}
    assert server.requests[0].functions.keys() == {"find"}
    assert answer.message == {"role": "assistant", "content": '{"day": "Monday"}'}


async def test_a_schema_that_the_strict_form_refuses_is_sent_as_it_is() -> None:
    server = Server(not_strict)
    chat = model(server)
    for _ in range(2):
        await chat.complete(ASKED, options=ModelOptions(schema=VISIT))
    assert len(server.requests) == 3
    wanted = server.requests[-1].options["response_format"]["json_schema"]
    assert wanted == {"name": "Visit", "strict": False, "schema": VISIT.schema}


@pytest.mark.parametrize("tools", [[], [FIND]])
@pytest.mark.parametrize("choice", [None, "none"])
async def test_without_such_a_mode_a_tool_gives_the_same_answer(tools: list[Any], choice: Any) -> None:
    server = Server(NO_MODE)
    chat = model(server)
    for _ in range(2):
        answer = await chat.complete(ASKED, tools=tools, tool_choice=choice, options=ModelOptions(schema=VISIT))
        assert json.loads(answer.message["content"] or "") == {"day": "Monday"}
        assert answer.message.keys() == {"role", "content"}
    assert len(server.requests) == 4  # the strict form, the schema as it is, and twice the tool
    last = server.requests[-1]
    assert last.functions.keys() == {ANSWER, *({"find"} if tools and choice is None else set())}
    assert last.functions[ANSWER]["parameters"] == VISIT.schema


async def test_other_tools_that_were_called_beside_it_come_first() -> None:
    both = ModelReply(calls=(Call(name=ANSWER, arguments={"day": "?"}), Call(name="find")))
    server = Server(NO_MODE)
    chat = model(lambda request: both if ANSWER in request.functions else server(request))
    answer = await chat.complete(ASKED, tools=[FIND], options=ModelOptions(schema=VISIT))
    assert [call["function"]["name"] for call in answer.message["tool_calls"]] == ["find"]


def test_objects_with_fields_of_any_name_have_no_strict_form() -> None:
    assert strict_schema({"type": "object", "additionalProperties": {"type": "string"}}) is None
    assert strict_schema({"type": "object"}) == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "required": [],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", True),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("reasoning_effort", " "),
        ("extra_body", {"messages": []}),
        ("extra_body", {"x": object()}),
    ],
)
def test_what_no_server_takes_is_refused_when_an_agent_is_made(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Agent a: {field} must"):
        Agent(name="a", description="a", instructions="a", **{field: value})


@pytest.mark.parametrize(("name", "schema"), [("a b", {"type": "object"}), ("a", {"type": "string"})])
def test_a_schema_that_no_server_takes_is_refused(name: str, schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot name a schema|has to be an object"):
        AnswerSchema(name=name, schema=schema)
