"""`@tool(check=…)`: what a check refuses does not happen, what it replaces happens so, in every run of the turn."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from moorline import CheckRefused, Pass, Refuse, Replace, execution
from moorline.errors import CheckFailed, StaleTurn, StoreUnavailable
from moorline_agents.agent import Agent
from moorline_agents.checks import Check, Verdict
from moorline_agents.tools import Effect, ToolContext, tool

from .claims import Connection, expire_lease
from .runtimes import Thing, crashed, runtime, say

EFFECTS: tuple[Effect, ...] = ("none", "database", "outside")


class Desk:
    """An agent whose tool `ring` has a check; the check says of each thing what `verdicts` says, or lets it pass."""

    def __init__(self, effect: Effect = "outside", **verdicts: Any) -> None:
        self.verdicts = verdicts
        self.checked: list[str] = []
        self.done: list[str] = []

        async def ring(thing: Thing, context: ToolContext) -> dict[str, str]:
            """Calls somebody."""
            self.done.append(thing.what)
            return {"rung": thing.what}

        tools = [tool(effect=effect, check=self.polite)(ring)]
        self.agent = Agent(name="desk", description="does it", instructions="desk", tools=tools)

    async def polite(self, thing: Thing, context: ToolContext) -> Verdict:
        assert (context.device_id, context.agent) == ("d1", "desk")
        self.checked.append(thing.what)
        verdict = self.verdicts.get(thing.what, Pass())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict  # type: ignore[no-any-return]  # whatever the test says


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_check_lets_pass_refuses_or_replaces_before_the_tool_runs(dsn: str, effect: Effect) -> None:
    desk = Desk(effect, bob=Refuse("Bob is asleep."), eve=Replace(Thing(what="ann")))
    async with runtime(dsn, agent=desk.agent) as moorline:
        events = [event async for event in moorline.stream("ring tom bob eve", {"device_id": "d1"})]
    assert desk.checked == ["tom", "bob", "eve"]
    assert desk.done == ["tom", "ann"]
    reply = events[-1].to_json()["reply"]
    assert reply["text"] == "1: tom; Bob is asleep.; check_refused; ann"
    refused = [event for event in events if isinstance(event, CheckRefused)]
    assert [(event.check, event.where, event.sentence, event.agent) for event in refused] == [
        ("polite", "tool", "Bob is asleep.", "desk")
    ]


async def test_a_rerun_neither_checks_again_what_was_decided_nor_does_it_otherwise(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    desk = Desk(bob=Refuse("Bob is asleep."), eve=Replace(Thing(what="ann")))
    async with AsyncExitStack() as stack:
        await crashed(stack, dsn, connection, "ring bob eve tom", "m1", agent=desk.agent)
        checked, desk.verdicts = [*desk.checked], {"eve": Refuse("Not today."), "tom": Refuse("Not today.")}
        async with runtime(dsn, agent=desk.agent) as moorline:
            assert await say(moorline, "ring bob eve tom", "m1") == "1: Bob is asleep.; check_refused; ann; tom"
    assert (checked, desk.checked) == (["bob", "eve", "tom"], ["bob", "eve", "tom"])
    assert desk.done == ["ann", "tom"]
    made = await connection.fetch("SELECT intent #>> '{}' AS made FROM conversation_effects ORDER BY position")
    assert [row["made"] for row in made] == ['{"what": "bob"}', '{"what":"ann"}', '{"what": "tom"}']


async def test_a_call_that_was_cut_off_is_made_again_as_it_was(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    verdicts: list[Verdict] = [Replace(Thing(what="ann"))]
    done: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def once(thing: Thing, context: ToolContext) -> Verdict:
        return verdicts.pop()

    @tool(effect="outside", idempotent=True, check=once)
    async def ring(thing: Thing, context: ToolContext) -> dict[str, str]:
        """Calls somebody."""
        done.append(thing.what)
        begun.set()
        if len(done) == 1:
            await go_on.wait()
        return {"rung": thing.what}

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[ring])
    async with runtime(dsn, agent=agent) as dying:
        cut_off = asyncio.create_task(say(dying, "ring eve", "m1"))
        await begun.wait()
        await expire_lease(connection, "d1")
        async with runtime(dsn, agent=agent) as moorline:
            assert await say(moorline, "ring eve", "m1") == "1: ann"
        go_on.set()
        with pytest.raises(StaleTurn):
            await cut_off
    assert done == ["ann", "ann"]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (LookupError("secret"), "raised LookupError"),
        (None, "returned NoneType"),
        (Replace("ann"), "needs Thing"),
    ],
)
async def test_a_check_that_does_not_work_lets_nothing_through_and_loses_nothing(
    dsn: str, verdict: Any, said: str
) -> None:
    desk = Desk(bob=verdict)
    async with runtime(dsn, agent=desk.agent) as moorline:
        with pytest.raises(CheckFailed, match=f"polite .*{said}") as failed:
            await say(moorline, "ring bob", "m1")
        assert failed.value.retryable
        assert "secret" not in str(failed.value)
        assert desk.done == []
        desk.verdicts = {}
        assert await say(moorline, "ring bob", "m1") == "1: bob"


async def test_a_check_that_hangs_is_bounded_like_its_tool(dsn: str) -> None:
    desk = Desk()

    async def hangs(thing: Thing, context: ToolContext) -> Verdict:
        await asyncio.sleep(40)
        return Pass()

    @tool(check=hangs, timeout=0.05)
    async def ring(thing: Thing, context: ToolContext) -> None:
        """Calls somebody."""
        desk.done.append(thing.what)

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[ring])
    async with runtime(dsn, agent=agent) as moorline:
        with pytest.raises(CheckFailed, match=r"hangs of agent desk did not end within 0\.05 s"):
            await say(moorline, "ring bob")
    assert desk.done == []


async def test_what_is_no_fault_of_the_check_stays_what_it_is(dsn: str) -> None:
    desk = Desk(bob=StoreUnavailable("down"))
    async with runtime(dsn, agent=desk.agent) as moorline:
        with pytest.raises(StoreUnavailable):
            await say(moorline, "ring bob")


@pytest.mark.parametrize("check", [Pass, lambda *_: Pass(), "polite"])
def test_what_cannot_be_a_check_is_refused_when_the_tool_is_made(check: Check) -> None:
    with pytest.raises(TypeError, match="cannot be a check"):

        @tool(check=check)
        async def ring(thing: Thing, context: ToolContext) -> None:
            """Calls somebody."""


@pytest.mark.parametrize("sentence", ["", " ", None])
def test_a_refusal_says_something(sentence: Any) -> None:
    with pytest.raises(ValueError, match="must say something"):
        Refuse(sentence)
