"""Any object with one method can be the model behind an agent, and it is closed with the runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from moorline import Moorline, Settings, TextDelta, TurnFinished
from moorline.testing import ModelReply, Script, error_reply, rule_client
from moorline_agents.agent import Agent
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import Model, ToolChoice
from moorline_agents.model_errors import ModelError
from moorline_agents.model_options import ModelOptions
from tests.agents.model.responses_server import ResponsesServer, message, stream


@dataclass
class Echo:
    """Says what it heard, piece by piece; ends the session on "bye"."""

    asked: list[tuple[list[str], ToolChoice | None]] = field(default_factory=list)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
        options: ModelOptions | None = None,  # noqa: ARG002 - it has none
    ) -> ModelAnswer:
        self.asked.append(([tool["function"]["name"] for tool in tools], tool_choice))
        if messages[-1]["content"] == "bye":
            call = {"id": "1", "type": "function", "function": {"name": "end_session", "arguments": "{}"}}
            return ModelAnswer({"role": "assistant", "content": None, "tool_calls": [call]})  # type: ignore[list-item]
        text = f"{messages[0]['content']} heard {messages[-1]['content']}"
        for piece in text.partition(" heard ") if on_text else ():
            on_text(piece)  # type: ignore[misc]
        return ModelAnswer({"role": "assistant", "content": text}, Usage(2, 3))


@dataclass
class Closing(Echo):
    """A model that notes when it is closed."""

    closed: int = 0

    async def aclose(self) -> None:
        self.closed += 1


def echoing(name: str, model: Model) -> Agent:
    return Agent(name=name, description=name, instructions=name, model=model)


async def test_what_a_failed_attempt_cost_is_counted_though_its_second_try_failed_too(settings: Settings) -> None:
    empty, again = ModelReply(text="", usage=Usage(5, 1)), ModelReply(text="hello", usage=Usage(7, 2))
    client = rule_client(Script(empty, error_reply(500), again)).with_options(max_retries=0)
    context = {"device_id": "d1", "message_id": "m1"}
    agent = Agent(name="a", description="a", instructions="a")
    async with Moorline(settings, agents=[agent], client=client) as moorline:
        with pytest.raises(ModelError):
            await moorline.run("hello", context)
        reply = await moorline.run("hello", context)
    assert reply.usage == {"prompt_tokens": 12, "completion_tokens": 3}
    assert list(reply.usage.by_agent) == ["a"]


async def test_a_model_of_ones_own_answers_streams_and_calls_tools(settings: Settings) -> None:
    model = Echo()
    async with Moorline(settings, agents=[echoing("echo", model)]) as moorline:
        events = [event async for event in moorline.stream("hello", {"device_id": "d1"})]
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["echo", " heard ", "hello"]
        assert isinstance(events[-1], TurnFinished)
        assert events[-1].reply == "echo heard hello"
        assert events[-1].reply.usage == {"prompt_tokens": 2, "completion_tokens": 3}
        assert await moorline.session("d1") is not None
        await moorline.run("bye", {"device_id": "d1"})
        assert await moorline.session("d1") is None
    assert model.asked[0] == (["end_session"], None)


async def test_an_agents_own_model_is_closed_with_the_runtime_once(settings: Settings) -> None:
    shared, other = Closing(), Closing()
    agents = [echoing("a", shared), echoing("b", shared), echoing("c", other)]
    for times in (1, 2):
        async with Moorline(settings, agents=agents):
            assert (shared.closed, other.closed) == (times - 1, times - 1)
        assert (shared.closed, other.closed) == (times, times)


async def test_a_model_that_fails_to_close_does_not_keep_the_others_open(settings: Settings) -> None:
    class Broken(Echo):
        async def aclose(self) -> None:
            raise OSError("gone")

    first, last = Closing(), Closing()
    with pytest.raises(OSError, match="gone"):
        async with Moorline(settings, agents=[echoing("a", first), echoing("b", Broken()), echoing("c", last)]):
            pass
    assert (first.closed, last.closed) == (1, 1)


async def test_an_agents_model_is_asked_with_the_agents_options(settings: Settings) -> None:
    script = Script("hello")
    cold = Agent(name="a", description="a", instructions="a", temperature=0, max_tokens=9, extra_body={"top_k": 1})
    async with Moorline(settings, agents=[cold], client=rule_client(script)) as moorline:
        await moorline.run("hello", {"device_id": "d1"})
    assert script.requests[0].options.items() >= {"temperature": 0, "max_tokens": 9, "top_k": 1}.items()


async def test_a_runtimes_own_model_answers_for_all_and_is_closed_with_it(settings: Settings) -> None:
    model = Closing()
    async with Moorline(settings, agents=[Agent(name="a", description="a", instructions="a")], model=model) as moorline:
        assert await moorline.run("hello", {"device_id": "d1"}) == "a heard hello"
    assert model.closed == 1


async def test_the_settings_say_by_which_api_the_model_is_asked(settings: Settings) -> None:
    server = ResponsesServer(stream(message("hello")))
    settings = settings.model_copy(update={"model_api": "responses"})
    agents = [Agent(name="a", description="a", instructions="Be kind.")]
    async with Moorline(settings, agents=agents, client=server.client) as moorline:
        reply = await moorline.run("hello", {"device_id": "d1"})
    assert reply == "hello"
    assert reply.usage == {"prompt_tokens": 75, "completion_tokens": 30}
    assert server.requests[0]["instructions"] == "Be kind."
