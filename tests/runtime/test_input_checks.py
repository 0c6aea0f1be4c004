"""Input checks: what they refuse is answered with their sentence, and no model, tool or later turn sees more of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from moorline import (
    Agent,
    AgentStarted,
    CheckRefused,
    Image,
    ModelFinished,
    Moorline,
    Pass,
    Refuse,
    Replace,
    Settings,
    TextDelta,
    TextWithdrawn,
    ToolContext,
    execution,
    tool,
)
from moorline.errors import CheckFailed, ModelError
from moorline.testing import Script, error_reply
from moorline_agents.checks import Check, Verdict
from moorline_agents.input_checks import REFUSED
from moorline_agents.messages import Usage
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client

from ..pictures import png
from ..strict_model import StrictModel
from ..turns.claims import expire_lease
from ..turns.runtimes import Thing

CONTEXT = {"device_id": "d1"}


class Checked:
    """An agent with one check, which waits until `go_on` is set and then says what `verdicts` says of the text."""

    def __init__(self, **agent: Any) -> None:
        self.verdicts: dict[str, Any] = {}
        self.checked: list[str] = []
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.waits = False
        self.seconds = 0.0
        self.done: list[str] = []

        @tool(effect="outside")
        async def act(thing: Thing, context: ToolContext) -> str:
            """Acts."""
            self.done.append(thing.what)
            return thing.what

        self.agent = Agent(
            name="desk", description="desk", instructions="desk", tools=[act], input_checks=[self.polite], **agent
        )

    async def polite(self, text: str, context: ToolContext) -> Verdict:
        assert (context.device_id, context.agent) == ("d1", "desk")
        self.checked.append(text)
        self.begun.set()
        if self.waits:
            await self.go_on.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        verdict = self.verdicts.get(text, Pass())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict  # type: ignore[no-any-return]  # whatever the test says


def echo(request: ModelRequest) -> ModelReply:
    """Says all that it is shown of the person; acts on `act …` first."""
    said = [message["content"] or "" for message in request.messages if message["role"] == "user"]
    if said[-1].startswith("act ") and request.messages[-1]["role"] == "user":
        return ModelReply(calls=(Call(name="act", arguments={"what": said[-1][4:]}),))
    return ModelReply(text=" | ".join(said))


Open = Callable[..., Moorline]


@pytest.fixture
def checked() -> Checked:
    return Checked()


@pytest.fixture
def opened(settings: Settings, checked: Checked) -> Open:
    def make(rules: Rules = echo, **options: Any) -> Moorline:
        own = settings.model_copy(update=options)
        return Moorline(own, agents=[checked.agent], client=lambda: rule_client(rules))

    return make


async def test_a_refused_text_is_answered_with_the_sentence_and_never_shown_to_a_model(
    opened: Open, checked: Checked
) -> None:
    model = StrictModel(rules=echo)
    checked.verdicts = {"secret": Refuse("I cannot talk about that.")}
    async with opened(model) as moorline:
        assert await moorline.run("hello", CONTEXT) == "hello"
        events = [event async for event in moorline.stream("secret", {**CONTEXT, "message_id": "m2"})]
        assert await moorline.run("secret", {**CONTEXT, "message_id": "m2"}) == "I cannot talk about that."
        assert await moorline.run("go on", CONTEXT) == f"hello | {REFUSED} | go on"
        transcript = await moorline.transcript("d1")
    assert [(event.check, event.where) for event in events if isinstance(event, CheckRefused)] == [("polite", "input")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["I cannot talk about that."]
    assert model.refused == []
    assert not any("secret" in str(request.messages) for request in model.requests)
    assert transcript[1].texts == ("secret",)


async def test_no_model_sees_the_files_of_a_refused_text_either(opened: Open, checked: Checked) -> None:
    model = StrictModel(rules=echo)
    checked.verdicts = {"secret": Refuse("No.")}
    async with opened(model) as moorline:
        assert await moorline.run(["secret", Image(png())], CONTEXT) == "No."
        assert await moorline.run("go on", CONTEXT) == f"{REFUSED} | go on"
    assert not any("image" in str(request.messages) for request in model.requests)


async def test_a_replaced_text_is_all_that_the_model_and_the_history_get(opened: Open, checked: Checked) -> None:
    model = StrictModel(rules=echo)
    checked.verdicts = {"my card is 4111": Replace("my card is [removed]")}
    async with opened(model) as moorline:
        assert await moorline.run("my card is 4111", CONTEXT) == "my card is [removed]"
        assert await moorline.run("thanks", CONTEXT) == "my card is [removed] | thanks"
    assert not any("4111" in str(request.messages) for request in model.requests)


class Slow:
    """Rules that say when they are asked, and answer once they may."""

    def __init__(self, rules: Callable[[ModelRequest], Any] = echo) -> None:
        self.asked, self.go_on, self.cancelled = asyncio.Event(), asyncio.Event(), False
        self._rules = rules

    async def __call__(self, request: ModelRequest) -> Any:
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self._rules(request)


async def test_checks_run_beside_the_model_and_stop_it(opened: Open, checked: Checked) -> None:
    model, checked.waits = Slow(), True
    checked.verdicts = {"secret": Refuse("No.")}
    events = []
    async with opened(model) as moorline:

        async def stream() -> None:
            events.extend([event async for event in moorline.stream("secret", CONTEXT)])

        streaming = asyncio.create_task(stream())
        await asyncio.gather(checked.begun.wait(), model.asked.wait())
        checked.go_on.set()
        await streaming
    assert model.cancelled
    assert [event.failed for event in events if isinstance(event, ModelFinished)] == ["CancelledError"]
    assert events[-1].to_json()["reply"]["text"] == "No."


async def test_nothing_is_shown_and_no_tool_runs_before_the_checks_have_passed(opened: Open, checked: Checked) -> None:
    checked.waits = True
    events: list[Any] = []
    answered = asyncio.Event()

    async with opened(Script(ModelReply(text="Hm.", calls=(Call(name="act", arguments={"what": "x"}),)), "done")) as m:

        async def stream() -> None:
            async for event in m.stream("act x", CONTEXT):
                events.append(event)
                if isinstance(event, ModelFinished):
                    answered.set()

        streaming = asyncio.create_task(stream())
        await answered.wait()
        await asyncio.sleep(0.05)
        assert checked.done == []
        assert not any(isinstance(event, TextDelta) for event in events)
        checked.go_on.set()
        await streaming
    assert checked.done == ["x"]
    assert events[-1].to_json()["reply"]["text"] == "done"


async def test_text_that_was_held_back_is_shown_when_the_checks_have_passed(opened: Open, checked: Checked) -> None:
    checked.waits = True
    async with opened() as moorline:
        asyncio.get_running_loop().call_later(0.1, checked.go_on.set)
        events = [event async for event in moorline.stream("hello there", CONTEXT)]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "hello there"
    assert not any(isinstance(event, TextWithdrawn) for event in events)


async def test_what_the_model_wrote_to_a_refused_text_is_counted_but_not_shown(opened: Open, checked: Checked) -> None:
    checked.waits, checked.verdicts = True, {"secret": Refuse("No.")}
    async with opened(Script(ModelReply(text="The secret is 42.", usage=Usage(5, 3)))) as moorline:
        asyncio.get_running_loop().call_later(0.2, checked.go_on.set)
        events = [event async for event in moorline.stream("secret", CONTEXT)]
        reply = events[-1].reply  # type: ignore[union-attr]
    assert (reply, dict(reply.usage)) == ("No.", {"prompt_tokens": 5, "completion_tokens": 3})
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["No."]


@pytest.mark.parametrize("fails_first", [True, False])
async def test_a_model_that_fails_does_not_hide_a_refusal_nor_a_refusal_an_error(
    opened: Open, checked: Checked, fails_first: bool
) -> None:
    checked.waits, checked.verdicts = fails_first, {"secret": Refuse("No.")}
    asyncio.get_running_loop().call_later(0.2, checked.go_on.set)
    async with opened(lambda _: error_reply(400)) as moorline:
        assert await moorline.run("secret", CONTEXT) == "No."
        with pytest.raises(ModelError):
            await moorline.run("hello", CONTEXT)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (LookupError("secret"), "raised LookupError"),
        (True, "returned bool"),
        (Replace(3), "replaced a text with int"),
        (Replace(" "), "with nothing"),
    ],
)
async def test_a_check_that_does_not_work_lets_nothing_through_and_loses_nothing(
    opened: Open, checked: Checked, verdict: Any, said: str
) -> None:
    checked.verdicts, checked.waits = {"hello": verdict}, True
    asyncio.get_running_loop().call_later(0.1, checked.go_on.set)
    async with opened() as moorline:
        events = [event async for event in moorline.stream("hello", {**CONTEXT, "message_id": "m1"})]
        error = events[-1].error  # type: ignore[union-attr]
        assert isinstance(error, CheckFailed)
        assert said in str(error)
        assert "secret" not in str(error)
        assert not any(isinstance(event, TextDelta) for event in events)
        checked.verdicts = {}
        assert await moorline.run("hello", {**CONTEXT, "message_id": "m1"}) == "hello"


async def test_a_check_that_hangs_is_bounded(opened: Open, checked: Checked) -> None:
    checked.waits = True
    async with opened(tool_timeout=0.1) as moorline:
        with pytest.raises(CheckFailed, match=r"polite of agent desk did not end within 0\.1 s"):
            await moorline.run("hello", CONTEXT)


async def test_checks_run_one_after_another_and_see_what_those_before_left(settings: Settings) -> None:
    seen: list[str] = []

    def check(name: str) -> Check:
        async def appends(text: str, context: ToolContext) -> Verdict:
            seen.append(text)
            await asyncio.sleep(0)
            return Replace(text + name)

        return appends

    agent = Agent(name="desk", description="desk", instructions="desk", input_checks=[check("b"), check("c")])
    async with Moorline(settings, agents=[agent], client=lambda: rule_client(echo)) as moorline:
        assert await moorline.run("a", CONTEXT) == "abc"
    assert seen == ["a", "ab"]


async def test_a_turn_that_is_stopped_during_a_check_keeps_nothing_unchecked(opened: Open, checked: Checked) -> None:
    checked.waits = True
    async with opened() as moorline:
        running = asyncio.create_task(moorline.run("secret", {**CONTEXT, "message_id": "m1"}))
        await checked.begun.wait()
        assert await moorline.stop("d1", "m1")
        assert await running == "Stopped."
        checked.waits = False
        assert await moorline.run("go on", CONTEXT) == f"{REFUSED} | go on"


async def test_what_may_answer_a_question_is_checked_before_a_model_reads_it(
    settings: Settings, checked: Checked
) -> None:
    @tool()
    async def ask(thing: Thing, context: ToolContext) -> str:
        """Asks."""
        return await context.ask("Which?", options=("soup", "fish"))

    def rules(request: ModelRequest) -> ModelReply:
        if "answer" in request.functions:
            assert "secret" not in str(request.messages)
            return ModelReply(
                calls=(Call(name="answer", arguments={"answers": True, "more": False, "answer": "fish"}),)
            )
        if request.messages[-1]["content"] == "ask":
            return ModelReply(calls=(Call(name="ask", arguments={"what": "x"}),))
        return ModelReply(text=request.messages[-1]["content"] or "")

    model = StrictModel(rules=rules)
    checked.verdicts = {"my secret is fish": Refuse("No."), "fish for 4111": Replace("fish for [removed]")}
    agent = replace(checked.agent, tools=[ask])
    async with Moorline(settings, agents=[agent], client=lambda: rule_client(model)) as moorline:
        for said, told in (("my secret is fish", "No."), ("fish for 4111", "fish for [removed]"), ("fishy", '"fish"')):
            assert await moorline.run("ask", CONTEXT) == "Which? (soup / fish)"
            assert await moorline.run(said, CONTEXT) == told
        # What is an option is one, whatever a check would say.
        checked.verdicts = {"fish": Refuse("No."), "hm": LookupError()}
        await moorline.run("ask", CONTEXT)
        assert await moorline.run("Fish!", CONTEXT) == '"fish"'
        await moorline.run("ask", CONTEXT)
        with pytest.raises(CheckFailed):
            await moorline.run("hm", CONTEXT)
        assert (await moorline.pending("d1")) is not None
    assert not any("secret" in str(request.messages) or "4111" in str(request.messages) for request in model.requests)


async def test_each_agent_checks_what_it_is_handed(settings: Settings, checked: Checked) -> None:
    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "front"}),))
        if request.system == "front":
            return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "desk", "reason": "asked"}),))
        return echo(request)

    checked.verdicts = {"secret": Refuse("No.")}
    front = Agent(name="front", description="front", instructions="front")
    async with Moorline(settings, agents=[front, checked.agent], client=lambda: rule_client(rules)) as moorline:
        events = [event async for event in moorline.stream("secret", CONTEXT)]
    assert [event.agent for event in events if isinstance(event, AgentStarted | CheckRefused)] == [
        "front",
        "desk",
        "desk",
    ]
    assert events[-1].to_json()["reply"]["text"] == "No."


@pytest.mark.parametrize(("replaces", "seconds"), [(True, 0), (True, 0.2), (False, 0.2)])
async def test_a_rerun_does_not_decide_anew(
    settings: Settings, checked: Checked, replaces: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process dies after a tool has acted; by then the check would say something else. What a model answered
    before a slow check had replaced the text is forgotten."""
    checked.seconds = seconds
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    model = Slow(rules=echo)

    async def rules(request: ModelRequest) -> Any:
        return await model(request) if request.messages[-1]["role"] == "tool" else echo(request)

    if replaces:
        checked.verdicts = {"act x": Replace("act y")}

    def make(own: Rules) -> Moorline:
        return Moorline(settings, agents=[checked.agent], client=lambda: rule_client(own))

    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(make(rules))
        running = asyncio.create_task(dying.run("act x", {**CONTEXT, "message_id": "m1"}))
        await model.asked.wait()
        connection = await asyncpg.connect(settings.database_url)
        await expire_lease(connection, "d1")
        await connection.close()
        checked.verdicts = {"act x": Refuse("No.")}
        async with make(echo) as moorline:
            expected = "act y" if replaces else "act x"
            assert await moorline.run("act x", {**CONTEXT, "message_id": "m1"}) == expected
            assert await moorline.run("go on", CONTEXT) == f"{expected} | go on"
        model.go_on.set()
        await asyncio.wait([running])
        assert running.exception() is not None
    assert checked.done == [expected[4:]]
    assert checked.checked == ["act x", "go on"]


async def test_a_burst_is_checked_as_one(opened: Open, checked: Checked) -> None:
    model = Slow()
    async with opened(model) as moorline:

        def say(text: str) -> Awaitable[str]:
            return moorline.run(text, {**CONTEXT, "on_busy": "merge", "message_id": text})

        first = asyncio.ensure_future(say("one"))
        await model.asked.wait()
        burst = [asyncio.ensure_future(say(text)) for text in ("two", "three")]
        await asyncio.sleep(0.3)
        checked.verdicts = {"two\n\nthree": Replace("2 3")}
        model.go_on.set()
        await first
        assert await asyncio.gather(*burst) == ["one | 2 3"] * 2
    assert checked.checked == ["one", "two\n\nthree"]


def test_what_cannot_be_a_check_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(TypeError, match="Agent desk: Pass cannot be a check"):
        Agent(name="desk", description="desk", instructions="desk", input_checks=[Pass])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="Agent desk: Pass cannot be a check"):
        Agent(name="desk", description="desk", instructions="desk", output_checks=[Pass])  # type: ignore[list-item]
