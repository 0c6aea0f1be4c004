"""The strict model server of the tests refuses what it should; otherwise it would prove little."""

from __future__ import annotations

from typing import Any

import pytest

from moorline.testing import Call, ModelReply, ModelRequest, RawReply
from tests.strict_model import DEEPSEEK, DEEPSEEK_4, GEMINI, OPENAI, SERVERS, Server, StrictModel

TOOLS = ({"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}},)
ASKED = {"role": "user", "content": "Hello?"}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "{}"}
FORCED = {"type": "function", "function": {"name": "find"}}


def called(arguments: str = "{}", name: str = "find", ids: str = "a", **more: Any) -> dict[str, Any]:
    calls = [{"id": at, "type": "function", "function": {"name": name, "arguments": arguments}, **more} for at in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


async def taken(server: Server, *messages: Any, **more: Any) -> bool:
    model = StrictModel(rules=lambda _: ModelReply(text="Hello!"), server=server)
    reply = await model(ModelRequest(model="m", messages=messages, tools=TOOLS, **more))
    assert isinstance(reply, RawReply) is bool(model.refused)
    return not model.refused


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_all_of_them(server: Server) -> None:
    assert await taken(server, ASKED)
    assert await taken(server, {"role": "system", "content": "x"}, ASKED, {"role": "assistant", "content": "y"}, ASKED)
    assert not await taken(server, {"role": "assistant", "content": "y"}, ASKED)
    assert not await taken(server, ASKED, RESULT)
    assert not await taken(server, ASKED, called())
    assert not await taken(server, ASKED, called(), ASKED)
    assert not await taken(server, ASKED, called(ids="ab"), RESULT)
    assert not await taken(server, ASKED, called(ids="aa"), RESULT, RESULT)
    for arguments in ('{"half', "", "[]", "null", '{"a": NaN}', "[" * 9999):
        assert not await taken(server, ASKED, called(arguments), RESULT)
    for name in ("", "a b", "a\0", "a" * 65):
        assert not await taken(server, ASKED, called(name=name), RESULT)
    assert not await taken(server, ASKED, {"role": "assistant", "content": ""})
    assert not await taken(server, {"role": "user", "content": None})
    assert not await taken(server, {"role": "user", "content": "x" * 40_000})
    assert not await taken(server, ASKED, tool_choice={"type": "function", "function": {"name": "other"}})
    assert await taken(server, ASKED, tool_choice=FORCED) is not server.thinking


async def test_some_of_them() -> None:
    signed: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "signature 1"}}}
    reasoned = {"reasoning_content": "reasoning 1"}
    assert await taken(OPENAI, ASKED, called(), RESULT)
    assert not await taken(OPENAI, ASKED, called(**signed), RESULT)
    assert not await taken(OPENAI, ASKED, called() | reasoned, RESULT)
    assert not await taken(GEMINI, ASKED, called(), RESULT)
    assert await taken(GEMINI, ASKED, called(**signed), RESULT)
    assert await taken(GEMINI, ASKED, called(), RESULT, ASKED)
    assert not await taken(DEEPSEEK, ASKED, called(), RESULT)
    assert await taken(DEEPSEEK, ASKED, called() | reasoned, RESULT)
    assert not await taken(DEEPSEEK, ASKED, called() | reasoned, RESULT, ASKED)
    assert not await taken(DEEPSEEK_4, ASKED, called(), RESULT, ASKED)
    assert await taken(DEEPSEEK_4, ASKED, called() | reasoned, RESULT, ASKED)


async def test_what_the_server_needs_back_comes_with_the_answer() -> None:
    request = ModelRequest(model="m", messages=(ASKED,), tools=TOOLS)  # type: ignore[arg-type]
    calls = ModelReply(calls=(Call(name="find"), Call(name="find")))
    signed = await StrictModel(rules=lambda _: calls, server=GEMINI)(request)
    reasoned = await StrictModel(rules=lambda _: calls, server=DEEPSEEK)(request)
    assert isinstance(signed, ModelReply)
    assert isinstance(reasoned, ModelReply)
    assert [bool(call.extra) for call in signed.calls] == [True, False]
    assert reasoned.extra == {"reasoning_content": "reasoning 1"}
