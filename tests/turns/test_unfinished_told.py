"""An agent is told what it did for a message whose turn failed, until that message is finished or set aside."""

import asyncio
from dataclasses import replace

import pytest

from moorline import Agent, AgentError, Moorline, Settings, ToolContext, tool
from moorline.testing import Script
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from .runtimes import Thing, World, after_tools, execute, obedient, runtime, say


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
async def _bookings(dsn: str) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")


def unlucky(request: ModelRequest) -> ModelReply:
    """Fails after the tools have run for a message that says book or ring, and answers any other; a router goes by the
    first word."""
    said = request.said[-1]
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": said.split(":")[0]}),))
    if after_tools(request) and said.split()[0] in ("book", "ring", "desk:"):
        raise LookupError
    return obedient(request)


async def test_the_agent_that_did_it_is_told_until_the_message_is_finished(dsn: str, world: World) -> None:
    script = Script(rules=unlucky)
    async with runtime(dsn, script, world=world) as moorline:
        with pytest.raises(AgentError) as caught:
            await say(moorline, "book table")
        assert caught.value.effects_kept
        assert await say(moorline, "did it work?") == "1: did it work?"
        told = script.requests[-1].briefing
        assert told.startswith("An earlier message of this person failed before it could be answered")
        assert '- book {"what": "table"}; result: {"booked": "table"}\n' in told
        assert "Do not make them again for the same thing" in told
        assert "never say that it was not done" in told
        assert "booked" not in "".join(script.requests[-1].said)
        await say(moorline, "and now?", device="d2")
        assert script.requests[-1].briefing == "", "that was somebody else"

    script = Script(rules=obedient)
    async with runtime(dsn, script, world=world) as moorline:
        assert await say(moorline, "book table", caught.value.message_id) == "2: table"
        assert script.requests[-1].briefing == "", "its own turn says what was done"
        await say(moorline, "thanks")
        assert script.requests[-1].briefing == ""
    assert len(await execute(dsn, "SELECT FROM bookings")) == 1


async def test_it_is_told_no_more_when_the_message_was_set_aside(dsn: str, world: World) -> None:
    script = Script(rules=unlucky)
    async with runtime(dsn, script, world=world) as moorline:
        for attempt in range(3):
            with pytest.raises(AgentError):
                await say(moorline, "book table", "m1")
            await say(moorline, "hello", f"n{attempt}")
            assert ("book" in script.requests[-1].briefing) is (attempt < 2)


async def test_of_a_call_whose_outcome_is_not_known_it_is_told_that(dsn: str, world: World) -> None:
    world.failing.add("bell")
    script = Script(rules=obedient)
    async with runtime(dsn, script, world=world) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "ring bell")
        await say(moorline, "did it ring?")
    assert '- ring {"what": "bell"}; outcome unknown: it may have been done' in script.requests[-1].briefing


async def test_of_a_call_that_was_given_up_it_is_told_that_too(dsn: str) -> None:
    @tool(effect="outside", timeout=0.1)
    async def ring(thing: Thing, context: ToolContext) -> None:
        """Calls somebody, who never answers."""
        await asyncio.sleep(40)

    agent = Agent(name="desk", description="desk", instructions="desk", tools=[ring])
    script = Script(rules=unlucky)
    async with runtime(dsn, script, agent=agent) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "ring bell")
        await say(moorline, "did it ring?")
    assert '- ring {"what": "bell"}; outcome unknown: it may have been done' in script.requests[-1].briefing


async def test_another_agent_is_not_told_though_it_has_the_same_tools(dsn: str, world: World) -> None:
    desk, other = (
        Agent(name=name, description=name, instructions=name, tools=world.tools(), keeps_session=False)
        for name in ("desk", "other")
    )

    def rules(request: ModelRequest) -> ModelReply:
        if request.system == "desk" and not after_tools(request) and "table" in request.said[-1]:
            return ModelReply(calls=(Call(name="book", arguments={"what": "table"}),))
        if request.system == "other" and not after_tools(request) and request.said[-1].startswith("desk"):
            return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "desk", "reason": ""}),))
        return unlucky(request)

    script = Script(rules=rules)
    async with Moorline(
        Settings(database_url=dsn), agents=[desk, other], client=lambda: rule_client(script)
    ) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "desk: book table, please", "m1")
        await say(moorline, "other: hello", "m2")
        assert (script.requests[-1].system, script.requests[-1].briefing) == ("other", "")
        await say(moorline, "desk: hello", "m3")
        assert "book" in script.requests[-1].briefing


async def test_an_agent_that_was_renamed_since_is_told_and_finishes_it_from_the_journal(dsn: str, world: World) -> None:
    desk = Agent(name="desk", description="does it", instructions="desk", tools=world.tools())
    async with runtime(dsn, unlucky, agent=desk) as moorline:
        with pytest.raises(AgentError) as caught:
            await say(moorline, "book table")
    script = Script(rules=obedient)
    async with runtime(dsn, script, agent=replace(desk, name="counter", aliases=["desk"])) as moorline:
        await say(moorline, "did it work?")
        assert '- book {"what": "table"}; result: {"booked": "table"}\n' in script.requests[-1].briefing
        reply = await say(moorline, "book table", caught.value.message_id)
        assert (str(reply), reply.agent) == ("2: table", "counter")
    assert len(await execute(dsn, "SELECT FROM bookings")) == 1
