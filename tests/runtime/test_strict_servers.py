"""Conversations with the strictest servers: none of them, and no person, is shown what a model writes wrongly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from moorline import Moorline, Settings
from moorline.errors import AgentError
from moorline_agents.agent import Agent
from moorline_agents.messages import ModelAnswer
from moorline_agents.model import Model
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from tests.strict_model import SERVERS, Server, StrictModel

from .conftest import agent

DEEP, LONG = '{"a":' * 70 + "1" + "}" * 70, '{"day": "' + "x" * 70_000 + '"}'
WRONG = ('{"day": ', "[]", '{"day": NaN}', '{"day": "\\ud83d"}', DEEP, LONG)


class Day(BaseModel):
    day: int


@tool()
async def find(arguments: Day, context: ToolContext) -> dict[str, Any]:
    """Finds what there is on a day."""
    return {"found": arguments.day}


def calendar(model: Model | None = None) -> Agent:
    return Agent(name="calendar", description="for all", instructions="calendar", tools=[find], model=model)


def busy(request: ModelRequest) -> ModelReply:
    """Calls tools at each message, rightly and wrongly, and far too many now and then; then tells what came of it."""
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "calendar"}),))
    asked = max(at for at, message in enumerate(request.messages) if message["role"] == "user")
    number = int(str(request.messages[asked]["content"]))
    results = [
        json.loads(str(message["content"])) for message in request.messages[asked + 1 :] if "tool_call_id" in message
    ]
    if results:
        refused = sum("error" in result for result in results)
        return ModelReply(text=f"<think>Hm.</think>{results[0]['found']}: {refused} refused")
    right = Call(name="find", arguments={"day": number})
    wrong = Call(name="find", arguments=WRONG[number % len(WRONG)])
    more = [Call(name="find", arguments={"day": 1})] * (30 if number % 5 == 0 else 0)
    return ModelReply(text="One moment.", calls=(right, wrong, Call(name="no such tool"), *more))


async def converse(server: Server, settings: Settings, turns: int) -> StrictModel:
    strict = StrictModel(rules=busy, server=server, limit=200_000)
    client = rule_client(strict).with_options(max_retries=0)
    async with Moorline(settings, agents=[calendar(), agent("desk")], client=client) as moorline:
        for number in range(1, turns + 1):
            refused = 3 if number % 5 == 0 else 2
            assert await moorline.run(str(number), {"device_id": "d"}) == f"{number}: {refused} refused"
    return strict


def learned(server: Server) -> int:
    """Refusals that showed what the server takes: that of the router, which asks for its tool by name, and that of
    reasoning which later turns lack."""
    return server.thinking + server.reasons_always


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_no_server_has_anything_to_refuse(server: Server, settings: Settings) -> None:
    strict = await converse(server, settings, turns=8)
    assert len(strict.refused) == learned(server)


@pytest.mark.laboratory
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_not_even_in_a_thousand_turns(server: Server, settings: Settings) -> None:
    strict = await converse(server, settings, turns=1_000)
    assert len(strict.refused) == learned(server)


class Endless:
    """A model of one's own, whose answer is far too long."""

    async def complete(self, messages: Any, **_: Any) -> ModelAnswer:  # noqa: ARG002 - always the same
        return ModelAnswer({"role": "assistant", "content": "x" * 300_000})


async def test_a_reply_without_end_is_refused_whatever_gave_it(settings: Settings) -> None:
    async with Moorline(settings, agents=[calendar(Endless())]) as moorline:
        with pytest.raises(AgentError, match="300,000 characters, but only 262,144"):
            await moorline.run("1", {"device_id": "d"})
