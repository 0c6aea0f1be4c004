"""The shapes in which servers send an answer's text, and how large it may become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorline.testing import ModelReply, RawReply, Script, error_reply
from moorline_agents.answer_text import AnswerText
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import AnswerCutOff, ModelError
from moorline_agents.transport import Call, rule_client

ASKED: list[Message] = [{"role": "user", "content": "Hello?"}]
STOP: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def said(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def stream(*chunks: dict[str, Any], done: bool = True) -> RawReply:
    pieces = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    if done:
        pieces.append(b"data: [DONE]\n\n")
    return RawReply(headers={"content-type": "text/event-stream"}, pieces=tuple(pieces))


async def ask(*replies: Any, shown: list[str] | None = None) -> ModelAnswer:
    script = Script(*replies)
    model = ChatModel(client=rule_client(script).with_options(max_retries=0), model="m", timeout=30)
    return await model.complete(ASKED, on_text=None if shown is None else shown.append)


async def text_of(*replies: Any) -> str:
    """The answer's text, which was shown exactly as it is kept."""
    shown: list[str] = []
    answer = await ask(*replies, shown=shown)
    assert "".join(shown) == answer.message["content"]
    return str(answer.message["content"])


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([said(content=[{"type": "text", "text": "Hel"}]), said(content=[{"text": "lo!"}]), STOP], "Hello!"),
        ([said(content=["Hel", {"type": "text", "text": "lo!"}]), STOP], "Hello!"),
        (
            [said(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, "Hello!"]), STOP],
            "Hello!",
        ),
        ([said(content="Good \ud83d"), said(content="\ude00!"), STOP], "Good \U0001f600!"),
        ([said(content="Good \ud83d"), said(content=None), said(content="\ude00!"), STOP], "Good \U0001f600!"),
        ([said(content="Half \ud83d"), said(content="!"), STOP], "Half \ufffd!"),
        ([said(content="Half \ud83d"), STOP], "Half \ufffd"),
        ([said(content="Hello!", tool_calls=None, refusal=None), STOP], "Hello!"),
        ([said(content="Hello!", tool_calls=[], refusal=""), STOP], "Hello!"),
        ([said(content=""), said(content=None), said(content="Hello!"), STOP], "Hello!"),
        ([said(refusal="I cannot "), said(refusal="do that."), STOP], "I cannot do that."),
        ([said(content="Hello!"), {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}], "Hello!"),
        ([said(content="Hello!"), {"choices": [{"index": 0, "delta": {}, "finish_reason": ""}]}], "Hello!"),
        ([said(content="Hello!")], "Hello!"),
    ],
)
async def test_each_of_them_is_understood(chunks: list[dict[str, Any]], text: str) -> None:
    assert await text_of(stream(*chunks)) == text


async def test_without_reason_and_end_mark_the_count_of_tokens_shows_the_end() -> None:
    counted = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    assert await text_of(stream(said(content="Hello!"), counted, done=False)) == "Hello!"
    with pytest.raises(ModelError, match="cut off"):
        await ask(stream(said(content="Hello"), done=False))


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("<think>Hm, what now?</think>\n\nHello!", "Hello!"),
        ("<think></think>Hello!", "Hello!"),
        ("\n<think>a < b</think>Hello <b>you</b>!", "Hello <b>you</b>!"),
        ("<think>one</think>Hello, <think>two</think>you!", "Hello, you!"),
        ("1 < 2 <thin </ think>", "1 < 2 <thin </ think>"),
        ("Write `<think>` and `</think>`.", "Write `<think>` and `</think>`."),
        ("Hello <think> you", "Hello <think> you"),
    ],
)
def test_thinking_in_tags_is_not_shown(sent: str, text: str, size: int) -> None:
    answer = AnswerText()
    shown = "".join(answer.add(sent[at : at + size]) for at in range(0, len(sent), size)) + answer.end()
    assert shown.strip() == str(answer).strip() == text


async def test_thinking_whose_opening_tag_the_server_keeps_is_not_part_of_the_answer() -> None:
    answer = await ask(stream(said(content="Hm, what "), said(content="now?</think>Hello!"), STOP))
    assert answer.message["content"] == "Hello!"


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["Hm, what ", "now?</think>", "Hello!"], "Hello!"),
        (["Hm, `</", "think>`?</th", "ink>\n\nHel", "lo <b>you</b>!"], "Hello <b>you</b>!"),
        (["<think>Hm</think>Hel", "lo!"], "Hello!"),
        (["Hello, ", "<think>hm</think>you", "!"], "Hello, you!"),
        (["Hel", "lo `</think>`!"], "Hello `</think>`!"),
        (["Hello!"], "Hello!"),
        (["a < b <", "/"], "a < b </"),
    ],
)
async def test_of_a_server_that_sends_only_the_closing_tag_no_second_answer_shows_its_thinking(
    answers: list[str], told: str
) -> None:
    first = stream(said(content="Hm."), said(content="</think>Hi."), STOP)
    second = stream(*[said(content=piece) for piece in answers], STOP)
    script = Script(first, second)
    model = ChatModel(client=rule_client(script).with_options(max_retries=0), model="m", timeout=30)
    shown: list[str] = []
    assert (await model.complete(ASKED, on_text=shown.append)).message["content"] == "Hi."
    assert shown == ["Hm.", "Hi."]  # before the tag came, nothing told that this was thinking
    shown.clear()
    assert (await model.complete(ASKED, on_text=shown.append)).message["content"] == told
    assert "".join(shown) == told


async def test_thinking_that_is_never_closed_is_no_answer_of_a_server_that_sends_only_the_closing_tag() -> None:
    first = stream(said(content="Hm.</think>Hi."), STOP)
    script = Script(first, *[stream(said(content="<think>Hm"), STOP)] * 2)
    model = ChatModel(client=rule_client(script).with_options(max_retries=0), model="m", timeout=30)
    await model.complete(ASKED)
    with pytest.raises(ModelError, match="empty answer"):
        await model.complete(ASKED)


async def test_thinking_alone_is_no_answer() -> None:
    with pytest.raises(ModelError, match="empty answer"):
        await ask(*[stream(said(content="<think>Hm"), STOP)] * 2)


async def test_an_empty_answer_is_asked_for_once_more() -> None:
    empty = ModelReply(text="", usage=Usage(5, 0))
    answer = await ask(empty, ModelReply(text="Hello!", usage=Usage(5, 2)))
    assert answer.message["content"] == "Hello!"
    assert answer.usage == Usage(10, 2)
    with pytest.raises(ModelError, match="empty answer") as raised:
        await ask(empty, empty, "never")
    assert raised.value.retryable


@pytest.mark.parametrize(
    ("replies", "cost"),
    [
        ([ModelReply(text="", usage=Usage(5, 1)), error_reply(500)], Usage(5, 1)),
        ([ModelReply(text="", usage=Usage(5, 1)), ModelReply(text=" ", usage=Usage(5, 2))], Usage(10, 3)),
        ([ModelReply(text="Hel", finish_reason="length", usage=Usage(5, 2))], Usage(5, 2)),
        ([error_reply(500)], Usage()),
    ],
    ids=["a failure after an empty answer", "two empty answers", "cut off", "a failure"],
)
async def test_what_an_answer_cost_that_came_to_nothing_is_known(replies: list[Any], cost: Usage) -> None:
    with pytest.raises(ModelError) as raised:
        await ask(*replies)
    assert raised.value.usage == cost


async def test_a_call_that_names_no_tool_is_asked_for_once_more() -> None:
    nameless = stream(said(tool_calls=[{"index": 0, "id": "a", "function": {"arguments": '{"day": 1}'}}]), STOP)
    assert await text_of(nameless, "Hello!") == "Hello!"


async def test_an_answer_that_was_cut_off_has_an_error_of_its_own() -> None:
    with pytest.raises(AnswerCutOff, match="length limit"):
        await ask(ModelReply(text="Hel", finish_reason="length"), "never")


@pytest.mark.parametrize("field", ["content", "refusal"])
async def test_a_text_without_end_is_stopped_while_it_streams(field: str) -> None:
    shown: list[str] = []
    with pytest.raises(ModelError, match="longer than 262144 characters") as raised:
        await ask(stream(*[said(**{field: "x" * 10_000})] * 1_000), shown=shown)
    assert not raised.value.retryable
    assert sum(map(len, shown)) <= 262_144


async def test_an_event_without_end_is_stopped_while_it_streams() -> None:
    endless = RawReply(headers={"content-type": "text/event-stream"}, pieces=(b"data: ", *[b"x" * 2**20] * 12))
    with pytest.raises(ModelError, match="far more than an answer"):
        await ask(endless)


@pytest.mark.parametrize("count", [-5, 10**30, "7", None, 1.5, [], {}])
async def test_a_count_that_is_none_does_not_spoil_the_answer(count: Any) -> None:
    counted = {"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 2}}
    answer = await ask(stream(said(content="Hello!"), STOP, counted))
    assert 0 <= answer.usage.prompt_tokens <= 10**12
    assert answer.usage.completion_tokens == 2


async def test_text_beside_calls_is_kept() -> None:
    answer = await ask(ModelReply(text="One moment.", calls=(Call(name="find"),)))
    assert answer.message["content"] == "One moment."
    assert len(answer.message["tool_calls"]) == 1
