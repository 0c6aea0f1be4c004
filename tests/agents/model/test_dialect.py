"""What servers do not take is left out once they have said so; what they need back is sent back, and to no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from moorline.testing import Call, ModelReply, ModelRequest, RawReply
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ModelError
from moorline_agents.transport import Reply, rule_client
from tests.strict_model import DEEPSEEK, DEEPSEEK_4, GEMINI, OPENAI, Server, StrictModel

FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
FORCED = {"type": "function", "function": {"name": "find"}}
SYSTEM: Message = {"role": "system", "content": "Be kind."}
ASKED: Message = {"role": "user", "content": "Hello?"}
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def called(*ids: str, content: str | None = None, **more: Any) -> Message:
    calls = [{"id": at, "type": "function", "function": {"name": "find", "arguments": "{}"}} for at in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls, **more}  # type: ignore[typeddict-item]


def result(call_id: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": "{}"}


CALLED = [SYSTEM, ASKED, called("a", "b"), result("a"), result("b")]


class Picky:
    """A server that answers, unless its rule finds something to refuse."""

    def __init__(self, objection: Callable[[ModelRequest], str | None], status: int = 400) -> None:
        self._objection = objection
        self._status = status
        self.requests: list[ModelRequest] = []
        self.refused = 0

    def __call__(self, request: ModelRequest) -> Reply:
        self.requests.append(request)
        words = self._objection(request)
        if words is None:
            return ModelReply(text="fine")
        self.refused += 1
        body = {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}}
        return RawReply(
            status=self._status, headers={"content-type": "application/json"}, pieces=(json.dumps(body).encode(),)
        )


def model(rules: Any, name: str = "m") -> ChatModel:
    return ChatModel(client=rule_client(rules).with_options(max_retries=0), model=name, timeout=30)


async def ask(chat: ChatModel, messages: list[Message], **more: Any) -> ModelAnswer:
    return await chat.complete(messages, tools=[FIND], **more)


def without_stream_options(request: ModelRequest) -> str | None:
    return "Extra inputs are not permitted: body.stream_options" if "stream_options" in request.options else None


def without_force(request: ModelRequest) -> str | None:
    forced = isinstance(request.tool_choice, dict)
    return "tool_choice does not support being set to required or object in thinking mode" if forced else None


def without_null(request: ModelRequest) -> str | None:
    null = any(message.get("content", "") is None for message in request.messages)
    return "Invalid 'content': 'content' field must be a string or an array of objects." if null else None


def without_empty(request: ModelRequest) -> str | None:
    empty = any(not message.get("content", "x") for message in request.messages)
    return "messages.2.content: text content blocks must be non-empty" if empty else None


def without_several_calls(request: ModelRequest) -> str | None:
    several = any(len(message.get("tool_calls", ())) > 1 for message in request.messages)
    return "This model only supports single tool-calls at once!" if several else None


def without_system(request: ModelRequest) -> str | None:
    return "System role not supported" if request.messages[0]["role"] == "system" else None


def alternating(request: ModelRequest) -> str | None:
    roles = [message["role"] for message in request.messages]
    apart = all(one != other for one, other in pairwise(roles))
    return None if apart else "Conversation roles must alternate user/assistant/user/assistant/..."


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501])
@pytest.mark.parametrize(
    ("objection", "messages", "refusals"),
    [
        (without_stream_options, CALLED, 1),
        (without_force, CALLED, 1),
        (without_null, CALLED, 1),
        (without_empty, CALLED, 2),
        (without_several_calls, CALLED, 1),
        (without_system, CALLED, 1),
        (alternating, [SYSTEM, ASKED, ASKED], 1),
    ],
)
async def test_what_a_server_refuses_is_left_out_from_then_on(
    objection: Any, messages: list[Message], refusals: int, status: int
) -> None:
    server = Picky(objection, status)
    chat = model(server)
    for _ in range(3):
        assert (await ask(chat, messages, tool_choice=FORCED)).message["content"] == "fine"
    assert server.refused == refusals
    told = json.dumps(server.requests[-1].messages)
    assert told.count("Be kind.") == 1
    assert told.count("Hello?") == sum(message is ASKED for message in messages)


async def test_a_forced_choice_becomes_auto_and_the_tools_stay() -> None:
    server = Picky(without_force)
    await ask(model(server), [ASKED], tool_choice=FORCED)
    assert [request.tool_choice for request in server.requests] == [FORCED, "auto"]
    assert server.requests[-1].functions.keys() == {"find"}


async def test_calls_that_were_made_at_once_are_told_one_by_one() -> None:
    server = Picky(without_several_calls)
    await ask(model(server), [ASKED, called("a", "b", content="One moment."), result("a"), result("b"), ASKED])
    sent = server.requests[-1].messages
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "tool", "user"]
    assert [message["content"] for message in sent[1:4:2]] == ["One moment.", None]


async def test_all_at_once() -> None:
    rules = (without_stream_options, without_force, without_null, without_several_calls, without_system)
    server = Picky(lambda request: next(filter(None, (rule(request) for rule in rules)), None))
    chat = model(server)
    for _ in range(2):
        await ask(chat, CALLED, tool_choice=FORCED)
    assert server.refused == len(rules)


async def test_a_guess_that_did_not_help_is_not_remembered() -> None:
    server = Picky(lambda _: "Invalid 'content', tool_choice, stream_options or system role.")
    chat = model(server)
    with pytest.raises(ModelError):
        await ask(chat, CALLED, tool_choice=FORCED)
    server._objection = lambda _: None
    await ask(chat, CALLED, tool_choice=FORCED)
    first, last = server.requests[0], server.requests[-1]
    assert (first.messages, first.tool_choice, first.options) == (last.messages, last.tool_choice, last.options)


async def test_what_was_learned_of_a_model_does_not_hold_for_others() -> None:
    server = Picky(without_force)
    client = rule_client(server)
    for name in ("one", "two"):
        await ask(ChatModel(client=client, model=name, timeout=30), [ASKED], tool_choice=FORCED)
    assert server.refused == 2


async def test_an_error_after_text_was_shown_is_not_asked_again() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
    failed = {"error": {"message": "stream_options went wrong"}}
    pieces = tuple(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (chunk, failed))
    requests: list[ModelRequest] = []

    def rules(request: ModelRequest) -> Reply:
        requests.append(request)
        return RawReply(headers={"content-type": "text/event-stream"}, pieces=pieces)

    with pytest.raises(ModelError, match="middle of its answer"):
        await ask(model(rules), [ASKED], on_text=lambda _: None)
    assert len(requests) == 1


async def test_an_error_says_what_the_server_said_and_guesses_nothing() -> None:
    with pytest.raises(ModelError) as raised:
        await ask(model(Picky(lambda _: "Temperature must be 1 for this one.")), [ASKED])
    told = "The model server refused the request (HTTP 400): invalid_request_error: Temperature must be 1 for this one."
    assert str(raised.value) == told


@pytest.mark.parametrize(
    "words",
    ["Cannot read 'my name is Erika Mustermann'", "bad key sk-proj-abcdefgh123", "x\x1b[31m" + "Erika Mustermann"],
)
async def test_an_error_quotes_neither_the_conversation_nor_a_key(words: str) -> None:
    with pytest.raises(ModelError) as raised:
        await ask(model(Picky(lambda _: words)), [{"role": "user", "content": "Hi, my name is Erika Mustermann"}])
    assert str(raised.value) == "The model server refused the request (HTTP 400): invalid_request_error"


async def turn(server: Server, reply: ModelReply, name: str = "m") -> tuple[ChatModel, StrictModel, list[Message]]:
    """A chat up to an answer with calls and its results."""
    strict = StrictModel(rules=lambda request: reply if request.messages[-1]["role"] == "user" else TEXT, server=server)
    chat = model(strict, name)
    answer = (await ask(chat, [ASKED])).message
    return chat, strict, [ASKED, answer, *(result(call["id"]) for call in answer["tool_calls"])]


TEXT = ModelReply(text="fine")
TWO_CALLS = ModelReply(calls=(Call(name="find"), Call(name="find")))


@pytest.mark.parametrize("server", [GEMINI, DEEPSEEK], ids=lambda server: server.name)
async def test_what_a_server_needs_back_it_gets_back(server: Server) -> None:
    chat, strict, history = await turn(server, TWO_CALLS)
    history.append((await ask(chat, history)).message)
    await ask(chat, [*history, ASKED])
    assert strict.refused == []


async def test_fields_that_nobody_knows_are_kept_and_sent_back_without_nulls() -> None:
    odd = {"new_field": {"x": [1]}, "nothing": None, "empty": ""}
    reply = ModelReply(calls=(Call(name="find", extra={"call_field": "y"}),), extra=odd)
    requests: list[ModelRequest] = []

    def rules(request: ModelRequest) -> Reply:
        requests.append(request)
        return reply if request.messages[-1]["role"] == "user" else TEXT

    chat = model(rules)
    answer = (await ask(chat, [ASKED])).message
    await ask(chat, [ASKED, answer, result(answer["tool_calls"][0]["id"])])
    sent: Any = requests[-1].messages[1]
    assert sent["new_field"] == {"x": [1]}
    assert not {"nothing", "empty", "extra", "origin"} & sent.keys()
    assert sent["tool_calls"][0]["call_field"] == "y"
    assert not {"extra", "refused"} & sent["tool_calls"][0].keys()


async def test_other_servers_and_models_get_none_of_it() -> None:
    _, _, history = await turn(GEMINI, TWO_CALLS)
    strict = StrictModel(rules=lambda _: TEXT, server=OPENAI)
    await ask(model(strict, "other"), history)
    assert strict.refused == []


async def test_reasoning_goes_back_only_within_its_turn() -> None:
    chat, strict, history = await turn(DEEPSEEK, TWO_CALLS)
    await ask(chat, history)
    assert "reasoning_content" in strict.requests[-1].messages[1]
    await ask(chat, [*history, {"role": "assistant", "content": "fine"}, ASKED])
    assert "reasoning_content" not in strict.requests[-1].messages[1]
    assert strict.refused == []


@pytest.mark.parametrize("server", [DEEPSEEK, DEEPSEEK_4], ids=lambda server: server.name)
async def test_calls_of_another_model_are_shown_without_reasoning_of_theirs(server: Server) -> None:
    _, _, history = await turn(OPENAI, TWO_CALLS)
    strict = StrictModel(rules=lambda request: TWO_CALLS if request.tools else TEXT, server=server)
    chat = model(strict)
    answer = await chat.complete(history, tools=[FIND])  # in the turn in which the other model made them
    history += [answer.message, *(result(call["id"]) for call in answer.message["tool_calls"])]
    history.append((await chat.complete(history)).message)
    for _ in range(2):  # and in later turns, with calls of its own beside them
        history.append(ASKED)
        history.append((await chat.complete(history)).message)
    learned = len(strict.refused)
    assert learned == (2 if server.reasons_always else 1)
    history.append(ASKED)
    await chat.complete(history, tools=[FIND])
    assert len(strict.refused) == learned
    given = [message.get("reasoning_content") for message in strict.requests[1].messages if message.get("tool_calls")]
    assert given == ["", "reasoning 1"]


@pytest.mark.parametrize("field", ["new_field", "call_field", "inner_field"])
async def test_a_field_that_the_server_refuses_by_name_is_left_out(field: str) -> None:
    def objection(request: ModelRequest) -> str | None:
        named = f'"{field}"' in json.dumps(request.messages)
        return f"Unknown parameter: 'messages[1].{field}'." if named else None

    server = Picky(objection)
    chat = model(server)
    origin = chat._dialects(rule_client(server))[1]
    extra = {"call_field": 1, "function": {"inner_field": 1}}
    answer: Any = called("a", extra={"new_field": 1}, origin=origin)
    answer["tool_calls"][0]["extra"] = extra
    for _ in range(2):
        await ask(chat, [ASKED, answer, result("a")])
    assert server.refused == 1
    told = json.dumps(server.requests[-1].messages)
    assert [name in told for name in ("new_field", "call_field", "inner_field")].count(True) == 2


@pytest.mark.parametrize("thought", ["a", "ä", "\n", "\U0001f600"])
async def test_what_is_kept_for_the_server_is_bounded(thought: str) -> None:
    extra = {"reasoning_content": thought * 100_000, "big": "x" * 40_000, "small": "y"}
    answer = await ask(model(lambda _: ModelReply(text="fine", extra=extra)), [ASKED])
    kept = answer.message["extra"]
    assert len(json.dumps(kept, ensure_ascii=False).encode()) <= 32_768
    assert kept["small"] == "y"
    assert len(kept["reasoning_content"]) > 5_000
    assert "big" not in kept


async def test_calls_in_an_old_history_are_sent_in_a_form_that_strict_servers_take() -> None:
    old: Any = called("a")
    history = []
    for arguments in ('{"half', "", "[]", "null", '{"a": NaN}', "[" * 9_999):
        old = called("a")
        old["tool_calls"][0]["function"] = {"name": "no such tool", "arguments": arguments}
        history += [ASKED, old, result("a")]
    strict = StrictModel(rules=lambda _: TEXT, limit=10**6)
    await ask(model(strict), history)
    assert strict.refused == []
