"""Rules behind the real client: what they are shown, and that their answers arrive like a server's."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from moorline.testing import Script, error_reply, serve
from moorline_agents.messages import Message, Usage
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ModelError
from moorline_agents.transport import Call, ModelReply, RawReply, rule_client

if TYPE_CHECKING:
    from pathlib import Path

    from moorline_agents.transport import ModelRequest

MESSAGES: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello?"},
]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {}}},
}


def model_of(script: Script) -> ChatModel:
    return ChatModel(client=rule_client(script), model="some-model", timeout=30)


async def test_rules_see_what_a_model_is_shown() -> None:
    script = Script("Hi.")
    await model_of(script).complete(MESSAGES, tools=[TOOL], tool_choice="none")
    (request,) = script.requests
    assert request.model == "some-model"
    assert list(request.messages) == MESSAGES
    assert request.system == "Be kind."
    assert request.functions == {"find": TOOL["function"]}
    assert request.tool_choice == "none"
    assert request.stream


async def test_what_the_person_said_is_text_also_if_files_came_with_it() -> None:
    script = Script("Hi.")
    text = "<briefing>\nNow it is noon.\n</briefing>\n\nLook!"
    parts: Any = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    await model_of(script).complete([MESSAGES[0], {"role": "user", "content": parts}])
    (request,) = script.requests
    assert request.messages[1]["content"] == parts
    assert request.said == ("Look!",)
    assert request.briefing == "Now it is noon."


async def test_an_answer_is_streamed_in_pieces_with_calls_and_usage() -> None:
    reply = ModelReply(
        text="One moment please.",
        calls=(Call(name="find", arguments={"day": "2026-11-23"}), Call(name="end_session")),
        usage=Usage(11, 4),
    )
    shown: list[str] = []
    answer = await model_of(Script(reply)).complete(MESSAGES, tools=[TOOL], on_text=shown.append)
    assert len(shown) > 1
    assert "".join(shown) == answer.message["content"] == "One moment please."
    assert [(c["id"], c["function"]) for c in answer.message["tool_calls"]] == [
        ("call_1", {"name": "find", "arguments": '{"day": "2026-11-23"}'}),
        ("call_2", {"name": "end_session", "arguments": "{}"}),
    ]
    assert answer.usage == Usage(11, 4)


async def test_call_ids_do_not_come_twice_in_a_conversation_even_where_its_beginning_is_not_shown() -> None:
    reply = ModelReply(calls=(Call(name="find"), Call(name="find")))
    model = model_of(Script(reply, reply, reply))
    first = await model.complete(MESSAGES)
    second = await model.complete([*MESSAGES, first.message])
    third = await model.complete([*MESSAGES, second.message])
    ids = [call["id"] for answer in (first, second, third) for call in answer.message["tool_calls"]]
    assert ids == [f"call_{number}" for number in range(1, 7)]


async def test_a_request_without_stream_gets_one_json_answer() -> None:
    script = Script(ModelReply(text="Hi.", calls=(Call(name="find"),), usage=Usage(3, 1)))
    answer = await rule_client(script).chat.completions.create(
        model="some-model", messages=[{"role": "user", "content": "Hello?"}]
    )
    message = answer.choices[0].message
    assert message.content == "Hi."
    assert message.tool_calls is not None
    assert message.tool_calls[0].id == "call_1"
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 4
    assert not script.requests[0].stream


async def test_rules_may_be_async() -> None:
    async def slow(request: ModelRequest) -> ModelReply:
        await asyncio.sleep(0)
        return ModelReply(text=f"{len(request.messages)} messages")

    answer = await model_of(Script(rules=slow)).complete(MESSAGES)
    assert answer.message["content"] == "2 messages"


async def test_errors_of_rules_meet_the_clients_own_retries() -> None:
    script = Script(error_reply(429, retry_after_ms=1), error_reply(500, retry_after_ms=1), "Hi.")
    answer = await model_of(script).complete(MESSAGES)
    assert answer.message["content"] == "Hi."
    assert len(script.requests) == 3


async def test_a_raw_reply_goes_out_as_it_is() -> None:
    raw = RawReply(headers={"content-type": "text/event-stream"}, pieces=(b"data: {no", b"pe\n\n"), pause=0.001)
    with pytest.raises(ModelError, match="not a chat-completions stream"):
        await model_of(Script(raw)).complete(MESSAGES)


async def test_a_script_that_is_used_up_says_so() -> None:
    model = model_of(Script("Hi."))
    await model.complete(MESSAGES)
    with pytest.raises(AssertionError, match="no reply for request 2"):
        await model.complete(MESSAGES)


async def test_a_client_of_rules_works_in_any_event_loop() -> None:
    model = model_of(Script("one", "two"))
    await asyncio.to_thread(lambda: asyncio.run(model.complete(MESSAGES)))
    assert (await model.complete(MESSAGES)).message["content"] == "two"


async def test_a_server_answers_many_at_once_each_its_own() -> None:
    async with serve(lambda request: ModelReply(text=request.messages[-1]["content"])) as base_url:
        model = _model_at(base_url)
        answers = await asyncio.gather(*(model.complete([{"role": "user", "content": f"I am {n}"}]) for n in range(50)))
        await model.aclose()
    assert [answer.message["content"] for answer in answers] == [f"I am {n}" for n in range(50)]


async def test_a_server_reports_rules_that_raise_and_goes_on() -> None:
    script = Script("Hi.")
    async with serve(script) as base_url:
        model = _model_at(base_url)
        await model.complete(MESSAGES)
        with pytest.raises(ModelError, match="HTTP 500") as raised:
            await model.complete(MESSAGES)
        await model.aclose()
    assert "no reply for request 2" in str(raised.value.__cause__)
    assert len(script.requests) == 2  # not retried


async def test_the_scripted_server_as_a_process_of_its_own(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    record = tmp_path / "record.jsonl"
    lines: list[dict[str, Any]] = [
        {"status": 429, "retry_after_ms": 1},
        {"calls": [{"name": "find", "arguments": {"day": "2026-11-23"}}]},
        {"text": "Hi."},
    ]
    replies.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moorline.testing"),
        *("--replies", str(replies), "--record", str(record)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        model = _model_at((await server.stdout.readline()).decode().strip())
        called = await model.complete(MESSAGES, tools=[TOOL])
        spoken = await model.complete(MESSAGES)
        await model.aclose()
    finally:
        server.terminate()
        await server.communicate()
    assert called.message["tool_calls"][0]["function"]["arguments"] == '{"day": "2026-11-23"}'
    assert spoken.message["content"] == "Hi."
    recorded = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [shown["tools"] for shown in recorded] == [["find"], ["find"], []]
    assert all(shown["messages"] == MESSAGES for shown in recorded)


def _model_at(base_url: str) -> ChatModel:
    from openai import AsyncOpenAI

    return ChatModel(client=lambda: AsyncOpenAI(api_key="test", base_url=base_url), model="some-model", timeout=30)
