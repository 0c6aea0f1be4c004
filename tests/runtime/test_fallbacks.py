"""A model that fails is replaced by the next one, as long as that may help and nothing was shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from moorline import AgentError, ChatModel, ModelFinished, Moorline, Settings, TextDelta, TurnFailed
from moorline.testing import ModelReply, RawReply, Script, error_reply, rule_client
from moorline_agents.agent import Agent
from moorline_agents.messages import Usage
from moorline_agents.model_errors import ContextOverflow
from moorline_agents.transport import Reply

ANSWER = ModelReply(text="hello", usage=Usage(5, 2))
SSE = {"content-type": "text/event-stream"}


def broken_off(*deltas: dict[str, Any]) -> RawReply:
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return RawReply(headers=SSE, pieces=tuple(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))


class Models:
    """Three models of one agent, each with its script."""

    def __init__(self, *scripts: Sequence[Reply | str]) -> None:
        self.scripts = [Script(*replies) for replies in scripts]
        models = [
            ChatModel(client=rule_client(script).with_options(max_retries=0), model=f"m{at}", timeout=30)
            for at, script in enumerate(self.scripts)
        ]
        self.agent = Agent(name="a", description="a", instructions="a", model=models[0], fallbacks=models[1:])

    @property
    def asked(self) -> list[int]:
        return [len(script.requests) for script in self.scripts]


async def events_of(settings: Settings, models: Models) -> list[Any]:
    async with Moorline(settings, agents=[models.agent]) as moorline:
        return [event async for event in moorline.stream("hello", {"device_id": "d1"})]


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
async def test_the_next_model_answers_and_everything_goes_by_its_name(settings: Settings, status: int) -> None:
    empty = ModelReply(text="", usage=Usage(3, 1))
    models = Models([error_reply(status)], [empty, empty], [ANSWER])
    events = await events_of(settings, models)
    asked = [(event.model, event.failed) for event in events if isinstance(event, ModelFinished)]
    assert asked == [("m0", "ModelError"), ("m1", "ModelError"), ("m2", None)]
    reply = events[-1].reply
    assert reply == "hello"
    assert reply.usage.by_model == {"m1": Usage(6, 2), "m2": Usage(5, 2)}
    assert models.asked == [1, 2, 1]


@pytest.mark.parametrize(
    "reply",
    [
        error_reply(400),
        error_reply(422),
        error_reply(400, code="content_filter"),
        ModelReply(text="x", finish_reason="content_filter"),
    ],
)
async def test_over_the_request_itself_no_other_model_is_asked(settings: Settings, reply: Reply) -> None:
    models = Models([reply], [ANSWER])
    events = await events_of(settings, models)
    assert isinstance(events[-1], TurnFailed)
    assert models.asked == [1, 0]


async def test_a_request_that_is_too_long_is_shortened_and_not_given_to_another(settings: Settings) -> None:
    models = Models(["fine", error_reply(400, code="context_length_exceeded"), "fine"], [])
    async with Moorline(settings, agents=[models.agent]) as moorline:
        for text in ("x" * 1_000, "hello"):
            assert await moorline.run(text, {"device_id": "d1"}) == "fine"
    assert models.asked == [3, 0]
    assert ContextOverflow().about_request


async def test_once_text_was_shown_no_other_model_is_asked(settings: Settings) -> None:
    models = Models([broken_off({"content": "Hel"})], [ANSWER])
    events = await events_of(settings, models)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel"]
    assert isinstance(events[-1], TurnFailed)
    assert models.asked == [1, 0]


async def test_an_answer_of_which_nothing_was_shown_is_another_models_to_give(settings: Settings) -> None:
    thinking = broken_off({"reasoning_content": "Hm"}, {"tool_calls": [{"index": 0, "function": {"name": "x"}}]})
    events = await events_of(settings, Models([thinking], [ANSWER]))
    assert events[-1].reply == "hello"


async def test_the_last_models_error_is_the_turns(settings: Settings) -> None:
    models = Models([error_reply(500)], [error_reply(401)])
    async with Moorline(settings, agents=[models.agent]) as moorline:
        with pytest.raises(AgentError, match="refused the key"):
            await moorline.run("hello", {"device_id": "d1"})


async def test_fallbacks_are_closed_with_the_runtime(settings: Settings) -> None:
    closed: list[str] = []

    class Closing:
        name = "closing"

        async def complete(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

        async def aclose(self) -> None:
            closed.append(self.name)

    model = Closing()
    agent = Agent(name="a", description="a", instructions="a", fallbacks=[model, model])
    async with Moorline(settings, agents=[agent]):
        pass
    assert closed == ["closing"]
