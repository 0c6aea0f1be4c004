"""A conversation never ends for being long: the model is shown as much as it has room for, and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from moorline import Agent, Moorline, Reply, Settings, TextDelta, TextWithdrawn, TurnFinished, tool
from moorline.errors import AgentError, AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.tokens import tokens_of, tokens_of_tools
from moorline_agents.tools import ToolContext
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client
from tests.strict_model import SERVERS, Server, StrictModel

from ..turns.runtimes import execute

DEVICE = {"device_id": "d1"}


class Size(BaseModel):
    characters: int = 10


class Nothing(BaseModel):
    pass


@tool()
async def read(size: Size, context: ToolContext) -> str:
    """Reads so many characters."""
    return "r" * size.characters


def desk(**options: Any) -> Agent:
    return Agent(name="desk", description="a desk", instructions="desk", tools=[read], **options)


@asynccontextmanager
async def talk(dsn: str, rules: Rules, *agents: Agent, **settings: Any) -> AsyncIterator[Callable[[str], Any]]:
    """Says something on one device to the agents, by default a desk."""
    settings = {"database_url": dsn, "model_retries": 0, "summary_model": "off", **settings}
    async with Moorline(
        Settings(**settings), agents=agents or (desk(),), client=lambda: rule_client(rules)
    ) as moorline:

        async def say(text: str) -> Reply:
            return await moorline.run(text, DEVICE)

        yield say


def said(request: ModelRequest) -> list[str]:
    return [str(message["content"]) for message in request.messages if message["role"] == "user"]


def size(request: ModelRequest) -> int:
    return sum(len(message["content"] or "") for message in request.messages if message["role"] != "system")


def tokens(request: ModelRequest) -> int:
    return tokens_of(request.messages) + tokens_of_tools(request.tools)


def reading(request: ModelRequest) -> ModelReply:
    """Does what the message says, as `read 3 5` calls `read` three times for five characters; then tells how many of
    the person's messages it was shown."""
    last = said(request)[-1].split()
    if request.messages[-1]["role"] == "user" and last[:1] == ["read"]:
        calls = [Call(name="read", arguments={"characters": int(last[2])})] * int(last[1])
        return ModelReply(calls=tuple(calls))
    return ModelReply(text=f"{len(said(request))} {'b' * 100}")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_conversation_longer_than_the_model_takes_goes_on(dsn: str, server: Server) -> None:
    model = StrictModel(rules=reading, server=server, limit=1000)
    async with talk(dsn, model, openai_model=server.name) as say:
        for number in range(80):
            await say(f"message {number} " + "a" * 80)
    assert 0 < len(model.refused) < 80 / 4
    assert all(said(request)[-1].startswith(f"message {number} ") for number, request in enumerate(model.requests))
    assert max(len(said(request)) for request in model.requests[40:]) > 5


async def test_what_had_no_room_is_not_shown_in_the_next_turns_either_whatever_process_they_run_in(dsn: str) -> None:
    model = StrictModel(rules=reading, limit=1000)
    for number in range(60):
        async with talk(dsn, model) as say:
            refused = len(model.refused)
            await say(f"message {number} " + "a" * 80)
            if len(model.refused) > refused:
                for more in range(3):
                    await say(f"{more}, and on")
                break
    assert len(model.refused) == 1


async def test_a_conversation_that_leaves_no_room_for_an_answer_goes_on(dsn: str) -> None:
    """The server takes it, and cuts the answer off."""
    asked: list[int] = []

    def short_of_room(request: ModelRequest) -> ModelReply:
        asked.append(size(request))
        return (
            ModelReply(text="I", finish_reason="length") if asked[-1] > 5_000 else ModelReply(text="Well. " + "b" * 80)
        )

    async with talk(dsn, short_of_room) as say:
        for number in range(80):
            assert (await say(f"message {number} " + "a" * 80)).startswith("Well. ")
    assert 80 < len(asked) < 80 * 5 / 4


async def test_an_answer_that_is_too_long_in_any_case_is_asked_for_once_more(dsn: str) -> None:
    asked: list[int] = []

    def endless(request: ModelRequest) -> ModelReply:
        asked.append(size(request))
        return ModelReply(text="I", finish_reason="length" if len(asked) > 1 else "stop")

    async with talk(dsn, endless) as say:
        await say("a" * 2_000)
        with pytest.raises(AnswerCutOff):
            await say("b" * 2_000)
    assert len(asked) == 3
    assert asked[2] <= asked[1] / 2


async def test_a_message_that_is_longer_than_the_model_takes_is_shown_without_its_middle(dsn: str) -> None:
    model = StrictModel(rules=reading, limit=1000)
    async with talk(dsn, model) as say:
        await say("hello")
        await say("begin " + "x" * 90_000 + " end")
        assert said(model.requests[-1])[-1].startswith("begin ")
        assert said(model.requests[-1])[-1].endswith(" end")
        await say("and now")
        assert said(model.requests[-1])[-1] == "and now"


async def test_results_that_are_longer_than_the_model_takes_are_shown_without_their_middle(dsn: str) -> None:
    model = StrictModel(rules=reading, limit=2000)
    async with talk(dsn, model) as say:
        assert str(await say("read 5 30000")).startswith("1 ")
        assert [message["role"] for message in model.requests[-1].messages][2:] == ["assistant", *["tool"] * 5]
        assert str(await say("and now")).startswith("2 ")


async def test_the_router_and_an_agent_share_what_a_model_takes(dsn: str) -> None:
    def routing(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "other"}),))
        return reading(request)

    other = Agent(name="other", description="others", instructions="other")
    roomy = StrictModel(rules=routing, limit=2000)
    async with talk(dsn, roomy, desk(), other) as say:
        assert (await say("x" * 90_000)).agent == "other"
    narrow = StrictModel(rules=routing, limit=400)
    free = Agent(name="free", description="f", instructions="free", keeps_session=False)
    async with talk(dsn, narrow, other, free) as say:
        await say("start over")
        assert (await say("x" * 90_000)).agent == "free"


async def test_only_instructions_that_have_no_room_at_all_are_an_error(dsn: str) -> None:
    model = StrictModel(rules=reading, limit=1000)
    wordy = Agent(name="desk", description="a desk", instructions="words " * 1000)
    async with talk(dsn, model, wordy) as say:
        with pytest.raises(ModelError, match="instructions, its tools and one message are too long") as failed:
            await say("hello " + "x" * 5000)
    assert type(failed.value) is ModelError
    assert isinstance(failed.value.__cause__, ContextOverflow)
    assert len(model.refused) < 12


async def test_what_a_stream_told_before_there_was_no_room_is_taken_back(dsn: str) -> None:
    class Fussy:
        """A model that finds out late how long the request is."""

        async def complete(
            self, messages: list[Message], *, on_text: Callable[[str], None] | None = None, **_: Any
        ) -> ModelAnswer:
            if on_text is not None:
                on_text("Well")
            if len(str(messages[-1]["content"])) > 1000:
                raise ContextOverflow(limit=None)
            return ModelAnswer({"role": "assistant", "content": "Well"})

    agent = Agent(name="desk", description="a desk", instructions="desk", model=Fussy())  # type: ignore[arg-type]
    async with Moorline(Settings(database_url=dsn), agents=[agent]) as moorline:
        events = [event async for event in moorline.stream("x" * 1500, DEVICE)]
    shown = [type(event) for event in events if isinstance(event, TextDelta | TextWithdrawn | TurnFinished)]
    assert shown == [TextDelta, TextWithdrawn, TextDelta, TurnFinished]


async def test_a_request_is_bounded_in_tokens(dsn: str) -> None:
    model = StrictModel(rules=reading, limit=10**9)
    async with talk(dsn, model, prompt_tokens=1000) as say:
        for number in range(40):
            await say(f"{number} " + "a" * 200)
        await say("x" * 9000)
        await say("read 4 5000")
    assert max(map(tokens, model.requests)) <= 1000
    assert {said(request)[-1].split()[0] for request in model.requests[:40]} == {str(number) for number in range(40)}
    assert min(len(said(request)) for request in model.requests[10:40]) > 2


async def test_what_is_stored_of_a_history_is_bounded_likewise(dsn: str) -> None:
    async with talk(dsn, reading, prompt_tokens=6_000, keep_turns=1) as say:
        for number in range(40):
            await say(f"{number} " + "a" * 5000)
    values, writes = (await execute(dsn, STORED))[0]
    assert values + writes < 100_000


STORED = """
SELECT (SELECT coalesce(sum(octet_length(blob)), 0)::integer FROM conversation_values),
    (SELECT coalesce(sum(octet_length(blob)), 0)::integer FROM conversation_writes)
"""


@pytest.mark.parametrize("calls", [1, 14, 16])
async def test_a_model_that_calls_tools_for_ever_is_stopped_and_always_shown_the_message(dsn: str, calls: int) -> None:
    def restless(request: ModelRequest) -> ModelReply:
        shown.append(said(request))
        return ModelReply(calls=(Call(name="read"),) * calls)

    shown: list[list[str]] = []
    async with talk(dsn, reading) as say:
        for number in range(50):
            await say(f"message {number}")
    async with talk(dsn, restless, tool_rounds=9) as say:
        with pytest.raises(AgentError, match="called tools 9 times"):
            await say("go on for ever")
    assert len(shown) == 10
    assert {texts[-1] for texts in shown} == {"go on for ever"}


async def test_rounds_count_in_an_agents_part_of_the_turn_and_parts_have_a_bound_of_their_own(dsn: str) -> None:
    asked: list[str] = []

    def restless(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        asked.append(request.system)
        if len(asked) % 3:
            return ModelReply(calls=(Call(name="read"),) * 2)
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": OTHER[request.system], "reason": "x"}),))

    agents = [desk(), Agent(name="other", description="others", instructions="other", tools=[read])]
    async with talk(dsn, restless, *agents, tool_rounds=3) as say:
        with pytest.raises(AgentError, match="handed over 5 times"):
            await say("go")
    assert len(asked) == 18


OTHER = {"desk": "other", "other": "desk"}


async def test_of_two_hand_overs_in_one_answer_the_first_stands_and_the_second_is_told(dsn: str) -> None:
    def both(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        if request.system == "desk" and said(request)[-1] == "both":
            targets = ("nobody", "bob", "carol", "bob")
            return ModelReply(
                calls=tuple(Call(name="hand_over", arguments={"agent": target, "reason": "x"}) for target in targets)
            )
        if said(request)[-1] == "back" and request.system == "bob":
            return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "desk", "reason": "x"}),))
        return ModelReply(text=request.system)

    model = StrictModel(rules=both)
    agents = [desk(), *(Agent(name=name, description=name, instructions=name) for name in ("bob", "carol"))]
    async with talk(dsn, model, *agents) as say:
        reply = await say("both")
        assert (reply, reply.agent, reply.handoffs) == ("bob", "bob", ("bob",))
        assert await say("back") == "desk"
    results = [
        json.loads(str(message["content"])) for message in model.requests[-1].messages if message["role"] == "tool"
    ]
    assert [result.get("code", result.get("handed_over_to")) for result in results] == [
        *("unknown_agent", "bob", "already_handed_over", "already_handed_over"),
    ]
    assert "bob" in results[2]["error"]
    assert model.refused == []


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_history_that_is_broken_already_is_put_right_for_the_server(dsn: str, server: Server) -> None:
    def call(*ids: str) -> Message:
        calls: Any = [{"id": own, "type": "function", "function": {"name": "read", "arguments": "{}"}} for own in ids]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def result(own: str) -> Message:
        return {"role": "tool", "tool_call_id": own, "content": f'"{own}"'}

    asks: Message = {"role": "user", "content": "x"}
    broken = (
        *(result("z"), asks, call("a", "b"), asks, result("b"), call("c"), call("a"), result("a"), result("a")),
        *(asks, call("d"), {"role": "assistant", "content": "y"}, result("d"), asks, call("e", "f"), result("f")),
    )
    model = StrictModel(rules=reading, server=server)
    settings = Settings(database_url=dsn, model_retries=0, openai_model=server.name)
    async with Moorline(settings, agents=[desk()], client=lambda: rule_client(model)) as moorline:
        await moorline.run("hello", DEVICE)
        graph, config = moorline._queue.execution.graph, {"configurable": {"thread_id": "d1"}}
        await graph.aupdate_state(config, {"desk.history": broken}, as_node="desk.think")  # type: ignore[arg-type]
        for text in ("and now", "again"):
            await moorline.run(text, DEVICE)
        history = (await graph.aget_state(config)).values["desk.history"]  # type: ignore[arg-type]
    # What a server wants of reasoning is learned by being refused.
    assert [refused for refused in model.refused if "reasoning_content" not in refused] == []
    found = {
        message["tool_call_id"]: message["content"]
        for message in model.requests[-1].messages
        if "tool_call_id" in message
    }
    assert {
        own
        for own, content in found.items()
        if "not done; the person said something else instead of answering" in str(content)
    } == {
        "c",
        "e",
    }
    # What was open at its end is closed in the history itself.
    assert sum("not done; the person said" in str(message["content"]) for message in history) == 1


@pytest.mark.parametrize("turns", [100, pytest.param(1000, marks=pytest.mark.laboratory)])
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_long_conversations_with_strict_servers(dsn: str, server: Server, turns: int) -> None:
    chance = Random(f"{server.name} {turns}")  # noqa: S311 - repeatable, no secret
    model = StrictModel(rules=reading, server=server, limit=4000)
    async with talk(dsn, model, prompt_tokens=4_000, openai_model=server.name) as say:
        for number in range(turns):
            kind = chance.random()
            if kind < 0.005:
                text = f"{number} " + "long " * chance.randrange(3000)
            elif kind < 0.01:
                text = "start over"
            elif kind < 0.3:
                text = f"read {chance.randrange(1, 9)} {chance.choice((0, 10, 300, 6000))}"
            else:
                text = f"message {number} " + "a" * chance.randrange(300)
            assert (await say(text)).turn_no == number + 1
    assert len(model.refused) < turns / 10
    too_long = server.too_long.split("{", maxsplit=1)[0]
    learned = [refused for refused in model.refused if not refused.startswith(too_long)]
    assert len(learned) <= server.reasons  # when it wants its reasoning back
