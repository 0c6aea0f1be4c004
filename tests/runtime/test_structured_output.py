"""`Agent(output=…)`: an answer is an instance of a class, in every process, and never one that does not fit."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, RootModel, field_validator

from moorline import (
    Agent,
    CheckRefused,
    Moorline,
    Pass,
    Refuse,
    Replace,
    Reply,
    Settings,
    TextDelta,
    ToolContext,
    tool,
)
from moorline.errors import AgentError, CheckFailed
from moorline.testing import Script, error_reply
from moorline_agents.checks import Verdict
from moorline_agents.messages import Usage
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client

from ..strict_model import StrictModel
from ..turns.runtimes import Thing

CONTEXT = {"device_id": "d1"}


class Visit(BaseModel):
    """A visit that the person wants."""

    service: Literal["haircut", "massage"]
    minutes: int = Field(default=30, le=90)
    note: str | None = Field(default=None, alias="remark")

    @field_validator("minutes")
    @classmethod
    def _in_quarters(cls, minutes: int) -> int:
        if minutes % 15:
            raise ValueError("must be a multiple of 15")
        return minutes


class Spoken(Visit):
    """A visit that is also told."""

    def __str__(self) -> str:
        return f"A {self.service} of {self.minutes} minutes."


GOOD = '{"service": "haircut", "minutes": 45, "remark": "short"}'


@tool()
async def look(thing: Thing, context: ToolContext) -> str:
    """Looks."""
    return thing.what


def desk(output: type[BaseModel] = Visit, **agent: Any) -> Agent:
    return Agent(name="desk", description="desk", instructions="desk", tools=[look], output=output, **agent)


def opened(settings: Settings, rules: Rules, *agents: Agent) -> Moorline:
    # What is learned of a server and a model is kept for as long as the process runs.
    settings = settings.model_copy(update={"openai_model": uuid4().hex})
    return Moorline(settings, agents=agents or [desk()], client=lambda: rule_client(rules))


def asked_for(request: ModelRequest) -> Mapping[str, Any]:
    form: Mapping[str, Any] = request.options.get("response_format", {})
    return form


async def test_an_answer_is_an_instance_and_its_json_is_the_reply(settings: Settings) -> None:
    script = Script(GOOD)
    async with opened(settings, script) as moorline:
        reply = await moorline.run("a haircut", CONTEXT)
    assert isinstance(reply.output, Visit)
    assert (reply.output.service, reply.output.minutes, reply.output.note) == ("haircut", 45, "short")
    assert json.loads(reply) == json.loads(GOOD) == reply.to_json()["output"]
    schema = asked_for(script.requests[0])["json_schema"]
    assert (schema["name"], [*schema["schema"]["properties"]]) == ("Visit", ["service", "minutes", "remark"])


async def test_a_class_that_says_how_it_is_written_is_what_the_person_reads(settings: Settings) -> None:
    script = Script(GOOD, GOOD)
    async with opened(settings, script, desk(Spoken)) as moorline:
        events = [event async for event in moorline.stream("a haircut", CONTEXT)]
        assert (await moorline.transcript("d1"))[0].record.reply == "A haircut of 45 minutes."
        await moorline.run("and?", CONTEXT)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["A haircut of 45 minutes."]
    told = events[-1].to_json()["reply"]
    assert (told["text"], told["output"]["minutes"]) == ("A haircut of 45 minutes.", 45)
    assert script.requests[1].messages[2]["content"] == GOOD  # its own answer, in its own form


async def test_a_replay_in_another_process_has_the_same_output(settings: Settings) -> None:
    said = {**CONTEXT, "message_id": "m1"}
    async with opened(settings, Script(GOOD), desk(Spoken)) as moorline:
        first = await moorline.run("a haircut", said)
    async with opened(settings, Script(), desk(Spoken)) as moorline:
        again = await moorline.run("a haircut", said)
        assert (again, again.output, again.replayed) == (first, first.output, True)
        assert (await moorline.transcript("d1"))[0].record.output == json.loads(GOOD)
    other = Agent(name="other", description="other", instructions="other")
    async with opened(settings, Script(), other) as moorline:
        assert (await moorline.run("a haircut", said)).output == json.loads(GOOD)
    renamed = Agent(name="new", aliases=["desk"], description="desk", instructions="desk", output=Spoken)
    async with opened(settings, Script(), renamed) as moorline:
        assert (await moorline.run("a haircut", said)).output == first.output

    class Spoken2(Spoken):
        minutes: int = Field(default=30, le=15)

    async with opened(settings, Script(), desk(Spoken2)) as moorline:
        assert (await moorline.run("a haircut", said)).output == json.loads(GOOD)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("Gladly!", "it is no JSON that can be used"),
        ("[1]", "Input should be an object"),
        ('{"service": "shave"}', "service: Input should be 'haircut' or 'massage'"),
        ('{"service": "haircut", "minutes": 20}', "minutes: Value error, must be a multiple of 15"),
        ('{"service": "haircut", "minutes": 1e999}', "it is no JSON that can be used"),
    ],
)
async def test_a_wrong_answer_is_told_to_the_model_but_not_to_the_person(
    settings: Settings, wrong: str, told: str
) -> None:
    model = StrictModel(rules=Script(wrong, GOOD, GOOD))
    async with opened(settings, model) as moorline:
        events = [event async for event in moorline.stream("a haircut", CONTEXT)]
        reply = events[-1].reply  # type: ignore[union-attr]
        assert isinstance(reply.output, Visit)
        await moorline.run("and?", CONTEXT)
    assert [event.text for event in events if isinstance(event, TextDelta)] == [reply]
    corrected, later = model.requests[-2], model.requests[-1]
    assert told in (corrected.messages[-1]["content"] or "")
    assert [message["content"] for message in later.messages[1:]] == ["a haircut", GOOD, "and?"]


async def test_after_the_third_wrong_answer_the_turn_fails_and_nothing_is_lost(settings: Settings) -> None:
    usage = Usage(10, 1)
    wrong = ModelReply(text="no", usage=usage)
    script = Script(wrong, wrong, wrong, ModelReply(text=GOOD, usage=usage))
    said = {**CONTEXT, "message_id": "m1"}
    async with opened(settings, script) as moorline:
        with pytest.raises(AgentError, match="desk answered 3 times with what is no Visit"):
            await moorline.run("a haircut", said)
        reply = await moorline.run("a haircut", said)
    assert isinstance(reply.output, Visit)
    assert reply.usage.prompt_tokens == 40


async def test_tools_come_first(settings: Settings) -> None:
    script = Script(ModelReply(text="hm", calls=(Call(name="look", arguments={"what": "x"}),)), GOOD)
    async with opened(settings, StrictModel(rules=script)) as moorline:
        assert isinstance((await moorline.run("a haircut", CONTEXT)).output, Visit)


async def test_a_server_without_such_a_mode_answers_by_a_tool(settings: Settings) -> None:
    def rules(request: ModelRequest) -> Any:
        if asked_for(request):
            return error_reply(400, code="response_format is not supported")
        assert "final_answer" in request.functions
        return ModelReply(calls=(Call(name="final_answer", arguments=json.loads(GOOD)),))

    async with opened(settings, rules) as moorline:
        reply: Reply = await moorline.run("a haircut", CONTEXT)
        assert isinstance(reply.output, Visit)


async def test_a_fence_around_the_json_does_no_harm(settings: Settings) -> None:
    async with opened(settings, Script(f"```json\n{GOOD}\n```")) as moorline:
        assert isinstance((await moorline.run("a haircut", CONTEXT)).output, Visit)


async def test_output_checks_see_the_instance(settings: Settings) -> None:
    async def short(visit: Visit, context: ToolContext) -> Verdict:
        if visit.service == "massage":
            return Refuse("We have no masseur.")
        if visit.minutes > 30:
            return Replace(visit.model_copy(update={"minutes": 30}))
        return Pass()

    massage = '{"service": "massage"}'
    script = Script(massage, GOOD, "no", GOOD)
    async with opened(settings, script, desk(Spoken, output_checks=[short])) as moorline:
        events = [event async for event in moorline.stream("a massage", CONTEXT)]
        refused = events[-1].reply  # type: ignore[union-attr]
        assert (refused, refused.output) == ("We have no masseur.", None)
        assert [event.where for event in events if isinstance(event, CheckRefused)] == ["output"]
        replaced = await moorline.run("a haircut", CONTEXT)
        assert (replaced, replaced.output.minutes) == ("A haircut of 30 minutes.", 30)
        await moorline.run("and?", CONTEXT)
    remembered = [
        message["content"] or "" for message in script.requests[-2].messages if message["role"] == "assistant"
    ]
    assert remembered[0] == "We have no masseur."
    assert json.loads(remembered[1])["minutes"] == 30


async def test_what_a_check_puts_in_place_has_to_fit(settings: Settings) -> None:
    async def wrong(visit: Visit, context: ToolContext) -> Verdict:
        return Replace(visit.model_copy(update={"minutes": 20}))

    async with opened(settings, Script(GOOD), desk(output_checks=[wrong])) as moorline:
        with pytest.raises(CheckFailed, match="no valid Visit"):
            await moorline.run("a haircut", CONTEXT)


async def test_an_input_check_that_refuses_leaves_no_output(settings: Settings) -> None:
    async def rude(text: str, context: ToolContext) -> Verdict:
        await asyncio.sleep(0.2)  # the model has answered by then
        return Refuse("No.")

    async with opened(settings, Script(GOOD), desk(input_checks=[rude])) as moorline:
        reply = await moorline.run("a haircut", CONTEXT)
    assert (reply, reply.output) == ("No.", None)


async def test_other_replies_have_none(settings: Settings) -> None:
    agent = Agent(name="desk", description="desk", instructions="desk")
    async with opened(settings, Script(GOOD), agent) as moorline:
        reply = await moorline.run("a haircut", CONTEXT)
    assert (reply.output, reply.to_json()["output"]) == (None, None)


async def test_a_turn_that_asks_or_is_handed_over_has_none(settings: Settings) -> None:
    @tool()
    async def ask(thing: Thing, context: ToolContext) -> str:
        """Asks."""
        return await context.ask("Which?", options=("short", "long"))

    def rules(request: ModelRequest) -> Any:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        if request.system == "other":
            return ModelReply(text="this is other")
        if request.messages[-1]["role"] == "tool":
            return ModelReply(text=GOOD)
        if request.said[-1] == "cut":
            return ModelReply(calls=(Call(name="ask", arguments={"what": "x"}),))
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "other", "reason": "so"}),))

    other = Agent(name="other", description="other", instructions="other")
    async with opened(settings, StrictModel(rules=rules), replace(desk(), tools=[ask]), other) as moorline:
        asked = await moorline.run("cut", CONTEXT)
        assert (asked, asked.output) == ("Which? (short / long)", None)
        assert isinstance((await moorline.run("long", CONTEXT)).output, Visit)
        assert (await moorline.run("cut", CONTEXT)).interrupt is not None
        handed = await moorline.run("something else", CONTEXT)
        assert (handed, handed.agent, handed.output) == ("this is other", "other", None)


def test_what_cannot_be_an_output_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(ValueError, match=r"Agent desk: Schema .*named fields"):
        desk(RootModel[list[int]])
    with pytest.raises(TypeError, match="must be a pydantic model"):
        desk(dict)  # type: ignore[arg-type]
