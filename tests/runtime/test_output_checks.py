"""Output checks: a person sees a sentence once it has passed; history, stored reply and stream are the same."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from moorline import (
    Agent,
    CheckRefused,
    Event,
    Moorline,
    Pass,
    Refuse,
    Replace,
    Settings,
    TextDelta,
    TextWithdrawn,
    ToolContext,
    tool,
)
from moorline.errors import AgentError, CheckFailed
from moorline.testing import Script
from moorline_agents.checks import Verdict
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.transport import Call, ModelReply, RawReply, rule_client

from ..strict_model import StrictModel
from ..turns.runtimes import Thing

CONTEXT = {"device_id": "d1"}


class Checked:
    """An agent whose answers a check looks through: it says what `verdicts` says of a sentence."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Any] = {}
        self.checked: list[str] = []
        self.slow = 0.0

        @tool()
        async def look(thing: Thing, context: ToolContext) -> str:
            """Looks."""
            return thing.what

        self.agent = Agent(
            name="desk", description="desk", instructions="desk", tools=[look], output_checks=[self.careful]
        )

    async def careful(self, sentence: str, context: ToolContext) -> Verdict:
        assert (context.device_id, context.agent) == ("d1", "desk")
        self.checked.append(sentence)
        await asyncio.sleep(self.slow)
        verdict = self.verdicts.get(sentence, Pass())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict  # type: ignore[no-any-return]  # whatever the test says


@pytest.fixture
def checked() -> Checked:
    return Checked()


Open = Callable[..., Moorline]


@pytest.fixture
def opened(settings: Settings, checked: Checked) -> Open:
    def make(*replies: Any, **options: Any) -> Moorline:
        own = settings.model_copy(update=options)
        rules = replies[0] if isinstance(replies[0], StrictModel) else Script(*replies)
        return Moorline(own, agents=[checked.agent], client=lambda: rule_client(rules))

    return make


def deltas(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


async def streamed(moorline: Moorline, text: str = "hello", message_id: str | None = None) -> list[Event]:
    return [event async for event in moorline.stream(text, {**CONTEXT, "message_id": message_id})]


async def test_text_is_told_sentence_by_sentence_as_it_passes(opened: Open, checked: Checked) -> None:
    text = "It costs 3.5 euros. See https://a.example/x.y now!\n\n- one\n- two. three\n今日。明日"
    async with opened(text) as moorline:
        events = await streamed(moorline)
    assert deltas(events) == [
        *("It costs 3.5 euros.", " See https://a.example/x.y now!", "\n\n- one", "\n- two.", " three"),
        *("\n今日。", "明日"),
    ]
    assert checked.checked == [delta.strip() for delta in deltas(events)]
    assert events[-1].to_json()["reply"]["text"] == text


@pytest.mark.parametrize("heard", [True, False])
async def test_a_refusal_withdraws_what_was_said_and_says_the_sentence(
    opened: Open, checked: Checked, heard: bool
) -> None:
    """Whether anybody listens or not, and so does the agent remember it."""
    model = StrictModel(rules=Script("Hello. The code is 42. Bye.", "fine"))
    checked.verdicts = {"The code is 42.": Refuse("I must not say that.")}
    async with opened(model) as moorline:
        if heard:
            events = await streamed(moorline, message_id="m1")
            assert deltas(events) == ["Hello.", "I must not say that."]
            assert len([event for event in events if isinstance(event, TextWithdrawn)]) == 1
            refused = [event for event in events if isinstance(event, CheckRefused)]
            assert [(each.check, each.where, each.sentence) for each in refused] == [
                ("careful", "output", "I must not say that.")
            ]
        assert await moorline.run("hello", {**CONTEXT, "message_id": "m1"}) == "I must not say that."
        assert (await moorline.transcript("d1"))[0].record.reply == "I must not say that."
        assert await moorline.run("and?", CONTEXT) == "fine"
    assert checked.checked == ["Hello.", "The code is 42.", "fine"]
    assert [message["content"] for message in model.requests[1].messages[1:]] == [
        "hello",
        "I must not say that.",
        "and?",
    ]


@pytest.mark.parametrize("heard", [True, False])
async def test_replaced_text_is_what_is_told_stored_and_remembered(opened: Open, checked: Checked, heard: bool) -> None:
    model = StrictModel(rules=Script(ModelReply(text="Hello. Call 0171 99.\nOh no! Bye."), "fine"))
    checked.verdicts = {"Call 0171 99.": Replace("Call […]."), "Oh no!": Replace("")}
    async with opened(model) as moorline:
        if heard:
            assert deltas(await streamed(moorline, message_id="m1")) == ["Hello.", " Call […].", "\n", " Bye."]
        reply = await moorline.run("hello", {**CONTEXT, "message_id": "m1"})
        assert reply == "Hello. Call […].\n Bye."
        assert await moorline.run("and?", CONTEXT) == "fine"
    assert model.requests[1].messages[2]["content"] == reply


class Reasoning:
    """A model that gives its server's fields with each answer, and keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Message] = []

    async def complete(self, messages: Sequence[Message], **_: Any) -> ModelAnswer:
        self.shown = [*messages]
        answer = "The code is 42." if len(messages) == 2 else "fine"
        return ModelAnswer({"role": "assistant", "content": answer, "extra": {"reasoning": "42"}, "origin": "mine"})


async def test_reasoning_behind_an_answer_that_was_changed_is_forgotten(settings: Settings, checked: Checked) -> None:
    model, checked.verdicts = Reasoning(), {"The code is 42.": Refuse("No.")}
    async with Moorline(settings, agents=[replace(checked.agent, model=model)]) as moorline:
        assert await moorline.run("hello", CONTEXT) == "No."
        assert await moorline.run("and?", CONTEXT) == "fine"
        assert "42" not in str(model.shown)
        await moorline.run("and?", CONTEXT)
        assert model.shown[4]["extra"] == {"reasoning": "42"}  # of an answer that passed as it was


async def test_the_text_of_an_answer_that_calls_tools_decides_nothing(opened: Open, checked: Checked) -> None:
    """It is withdrawn in any case, so that it makes no difference whether somebody listened."""
    checked.verdicts = {"The code is 42.": Refuse("No.")}
    calling = ModelReply(text="The code is 42. I look.", calls=(Call(name="look", arguments={"what": "x"}),))
    async with opened(calling, "Found.", calling, "Found.") as moorline:
        events = await streamed(moorline)
        assert not any(isinstance(event, CheckRefused) for event in events)
        assert deltas(events) == ["Found."]
        assert await moorline.run("again", CONTEXT) == "Found."


async def test_a_slow_check_holds_back_what_follows(opened: Open, checked: Checked) -> None:
    checked.slow = 0.05
    async with opened("One. Two. Three") as moorline:
        assert deltas(await streamed(moorline)) == ["One.", " Two.", " Three"]


@pytest.mark.parametrize(
    ("verdict", "said"), [(LookupError("42"), "raised LookupError"), ("no", "returned str"), (Replace(1), "with int")]
)
async def test_a_check_that_does_not_work_lets_nothing_through_and_loses_nothing(
    opened: Open, checked: Checked, verdict: Any, said: str
) -> None:
    checked.verdicts = {"Two.": verdict}
    async with opened("One. Two. Three.", "One. Two.") as moorline:
        events = await streamed(moorline, message_id="m1")
        assert deltas(events) == ["One."]
        error = events[-1].error  # type: ignore[union-attr]
        assert isinstance(error, CheckFailed)
        assert said in str(error)
        assert "42" not in str(error)
        checked.verdicts = {}
        assert await moorline.run("hello", {**CONTEXT, "message_id": "m1"}) == "One. Two."


async def test_a_check_that_hangs_is_bounded(opened: Open, checked: Checked) -> None:
    checked.slow = 40
    async with opened("One.", tool_timeout=0.1) as moorline:
        with pytest.raises(CheckFailed, match=r"did not end within 0\.1 s"):
            await moorline.run("hello", CONTEXT)


@pytest.mark.parametrize("answer", ["One.", "One. Two."])
async def test_an_answer_of_which_nothing_is_left_is_an_error(opened: Open, checked: Checked, answer: str) -> None:
    checked.verdicts = {"One.": Replace(""), "Two.": Replace("")}
    async with opened(answer) as moorline:
        with pytest.raises(AgentError, match="empty answer"):
            await moorline.run("hello", CONTEXT)


async def test_a_stopped_turn_keeps_what_has_passed(opened: Open, checked: Checked) -> None:
    said = asyncio.Event()
    reached = asyncio.Event()

    async def hangs(sentence: str, context: ToolContext) -> Verdict:
        if sentence == "Two.":
            reached.set()
            await asyncio.sleep(40)
        return Pass()

    checked.agent = Agent(name="desk", description="desk", instructions="desk", output_checks=[hangs])
    async with opened("One. Two. Three.") as moorline:

        async def stream() -> list[Event]:
            events = []
            async for event in moorline.stream("hello", {**CONTEXT, "message_id": "m1"}):
                events.append(event)
                if isinstance(event, TextDelta):
                    said.set()
            return events

        streaming = asyncio.create_task(stream())
        await asyncio.gather(said.wait(), reached.wait())
        assert await moorline.stop("d1", "m1")
        events = await streaming
    assert events[-1].to_json()["reply"]["text"] == "One."


async def test_a_model_that_fails_in_the_middle_leaves_nothing_behind(opened: Open) -> None:
    async with opened(RawReply(status=400), "One. Two.") as moorline:
        events = await streamed(moorline, message_id="m1")
        assert deltas(events) == []
        assert await moorline.run("hello", {**CONTEXT, "message_id": "m1"}) == "One. Two."
