"""An effect happens once, wherever a turn is cut off and however often it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime

from moorline import GraphAgent, Moorline, Settings, execution
from moorline.errors import AgentError, StaleTurn
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.run import RunContext
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from .claims import Connection, expire_lease
from .runtimes import (
    Stall,
    Thing,
    World,
    after_tools,
    crashed,
    execute,
    failed_burst,
    obedient,
    runtime,
    say,
)


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is taken for dead does not renew its lease."""
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def stack(dsn: str) -> AsyncIterator[AsyncExitStack]:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with AsyncExitStack() as stack:
        yield stack


async def booked(dsn: str) -> list[str]:
    return [row["what"] for row in await execute(dsn, "SELECT what FROM bookings ORDER BY what")]


async def journal(connection: Connection) -> list[tuple[str, str, bool]]:
    """Of all journal entries: kind, name, and whether there is a result."""
    rows = await connection.fetch("SELECT kind, name, result FROM conversation_effects ORDER BY message_id, position")
    return [(row["kind"], row["name"], row["result"] is not None) for row in rows]


async def test_a_database_effect_commits_with_its_entry_and_a_rerun_reads_that(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    await crashed(stack, dsn, connection, "book table chair", "m1", world=world)
    assert await booked(dsn) == ["chair", "table"]
    assert await journal(connection) == [
        ("answer", "desk", False),
        ("database", "book", True),
        ("database", "book", True),
    ]
    script = Script(rules=obedient)
    async with runtime(dsn, script, world=world) as moorline:
        assert await say(moorline, "book table chair", "m1") == "1: table; chair"
    assert len(script.requests) == 1  # the call itself was recalled
    assert await booked(dsn) == ["chair", "table"]
    assert await journal(connection) == [("database", "book", True), ("database", "book", True)]


async def test_a_run_that_was_cut_off_between_two_effects_does_only_the_second(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    await crashed(stack, dsn, connection, "book table chair", "m1", world=world)
    await connection.execute("DELETE FROM bookings WHERE what = 'chair'")
    await connection.execute("DELETE FROM conversation_effects WHERE position = 2")
    async with runtime(dsn, world=world) as moorline:
        assert await say(moorline, "book table chair", "m1") == "1: table; chair"
    assert await booked(dsn) == ["chair", "table"]


async def test_a_database_effect_that_fails_leaves_neither_row_nor_entry(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    world.failing = {"chair"}
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "book table chair", "m1")
        assert await booked(dsn) == ["table"]
        assert await journal(connection) == [("answer", "desk", False), ("database", "book", True)]
        world.failing = set()
        assert await say(moorline, "book table chair", "m1") == "1: table; chair"
    assert await booked(dsn) == ["chair", "table"]


@pytest.mark.parametrize("verb", ["book", "ring"])
async def test_a_call_that_was_refused_stays_refused(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World, verb: str
) -> None:
    world.refused = {"chair"}
    await crashed(stack, dsn, connection, f"{verb} chair table", "m1", world=world)
    world.refused = set()
    async with runtime(dsn, world=world) as moorline:
        assert await say(moorline, f"{verb} chair table", "m1") == "1: no chair today; out; ['chair']; table"
    done = await booked(dsn) if verb == "book" else [what for what, _ in world.calls]
    assert done == ["table"]


async def test_an_outside_effect_has_its_intent_before_it_and_its_result_after_it(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    seen = []

    @tool(effect="outside")
    async def ring(thing: Thing, context: ToolContext) -> str:
        """Calls somebody."""
        seen.extend(await journal(connection))
        return thing.what

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[ring])
    script = Script(ModelReply(calls=(Call(name="ring", arguments={"what": "bell"}),)), "rung")
    async with runtime(dsn, script, agent=agent) as moorline:
        assert await say(moorline, "ring bell", "m1") == "rung"
    assert seen == [("answer", "desk", False), ("outside", "ring", False)]
    assert await journal(connection) == [("outside", "ring", True)]


async def test_an_outside_effect_that_is_over_is_not_repeated(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    await crashed(stack, dsn, connection, "ring bell", "m1", world=world)
    async with runtime(dsn, world=world) as moorline:
        assert await say(moorline, "ring bell", "m1") == "1: bell"
    assert [what for what, _ in world.calls] == ["bell"]


async def test_an_outside_effect_of_unknown_outcome_is_not_repeated_and_the_model_is_told(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    world.failing = {"bell"}
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "ring bell", "m1")
        assert await journal(connection) == [("answer", "desk", False), ("outside", "ring", False)]
        world.failing = set()
        assert "before its outcome was known" in await say(moorline, "ring bell", "m1")
    assert [what for what, _ in world.calls] == ["bell"]


async def test_an_outside_effect_that_may_be_repeated_is_with_the_same_key(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    world.failing = {"bell"}
    async with runtime(dsn, world=world) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "chime bell", "m1")
    world.failing = set()
    async with runtime(dsn, world=world) as moorline:
        assert await say(moorline, "chime bell", "m1") == "1: bell"
        assert await say(moorline, "chime bell bell", "m2") == "2: bell; bell"
        await say(moorline, "chime bell", "m1", device="d2")
    first, again, *others = [key for _, key in world.calls]
    assert first == again
    assert len({first, *others}) == 4


async def agents_of(connection: Connection) -> list[tuple[str, str, str | None]]:
    """Of all journal entries: kind, name and agent."""
    rows = await connection.fetch("SELECT kind, name, agent FROM conversation_effects ORDER BY message_id, position")
    return [(row["kind"], row["name"], row["agent"]) for row in rows]


async def test_every_entry_says_whose_it_is(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    world.failing = {"bell"}

    def handing_over(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "front"}),))
        if request.system == "front":
            return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "desk", "reason": "asked"}),))
        if after_tools(request):
            return ModelReply(calls=(Call(name="ring", arguments={"what": "bell"}),))
        return ModelReply(calls=(Call(name="book", arguments={"what": "table"}),))

    agents = [
        Agent(name="front", description="asks", instructions="front"),
        Agent(name="desk", description="does it", instructions="desk", tools=world.tools()),
    ]
    async with Moorline(
        Settings(database_url=dsn), agents=agents, client=lambda: rule_client(handing_over)
    ) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "hello", "m1")
    assert await agents_of(connection) == [
        ("answer", "route", "route"),
        ("answer", "front", "front"),
        ("answer", "desk", "desk"),
        ("database", "book", "desk"),
        ("answer", "desk", "desk"),
        ("outside", "ring", "desk"),
    ]


async def test_a_rerun_that_begins_with_an_effect_goes_to_the_agent_whose_effect_it_was(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    """A graph of the user's own calls a tool without asking our model."""
    book = next(tool for tool in world.tools() if tool.name == "book")
    reached, go_on = asyncio.Event(), asyncio.Event()
    stalls: list[asyncio.Event] = []

    async def answer(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        context = runtime.context
        done = await context.journal.perform(book, json.dumps({"what": state["messages"][-1].text}), context.tools)
        reached.set()
        if stalls:
            await stalls.pop().wait()
        return {"messages": [("assistant", done["booked"])]}

    def routing(request: ModelRequest) -> ModelReply:
        agent = "clerk" if request.messages[-1]["content"] == "table" else "desk"
        return ModelReply(calls=(Call(name="route", arguments={"agent": agent}),))

    def open_runtime() -> Moorline:
        graph = StateGraph(MessagesState, context_schema=RunContext).add_node("answer", answer)
        clerk = GraphAgent(name="clerk", description="books", graph=graph.add_edge(START, "answer").compile())
        desk = Agent(name="desk", description="talks", instructions="desk")
        return Moorline(Settings(database_url=dsn), agents=[desk, clerk], client=lambda: rule_client(routing))

    async with open_runtime() as dying:
        assert (await say(dying, "table", "m1")).agent == "clerk"
        stalls.append(go_on)
        reached.clear()
        task = asyncio.create_task(say(dying, "chair", "m2"))
        await reached.wait()
        await expire_lease(connection)
        await connection.execute("UPDATE conversation_states SET session_ttl = 1, locked_at = '2000-01-01'")
        await connection.execute("UPDATE conversation_states SET last_active_at = '2000-01-01'")
        async with open_runtime() as moorline:
            reply = await say(moorline, "chair", "m2")
            assert (str(reply), reply.agent, reply.replayed) == ("chair", "clerk", False)
        go_on.set()
        with pytest.raises(StaleTurn):
            await task
    assert await booked(dsn) == ["chair", "table"]


async def test_what_only_reads_is_not_journaled(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    @tool()
    async def look(thing: Thing, context: ToolContext) -> str:
        """Looks at it."""
        return thing.what

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[look])
    script = Script(ModelReply(calls=(Call(name="look", arguments={"what": "table"}),)), "seen")
    async with runtime(dsn, script, agent=agent) as moorline:
        assert await say(moorline, "look table", "m1") == "seen"
    assert await journal(connection) == []


async def test_a_stale_turn_has_no_effect_any_more(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    for verb in ("book", "ring"):
        stall = Stall()
        async with runtime(dsn, stall, world=world) as stale, runtime(dsn, world=world) as moorline:
            running = asyncio.create_task(say(stale, f"{verb} it", verb))
            await stall.reached.wait()
            await expire_lease(connection)
            assert str(await say(moorline, f"{verb} it", verb)).endswith(": it")
            stall.go_on.set()
            with pytest.raises(StaleTurn):
                await running
    assert await booked(dsn) == ["it"]
    assert [what for what, _ in world.calls] == ["it"]


async def test_an_agent_that_was_changed_does_nothing_new_on_a_rerun(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    await crashed(stack, dsn, connection, "book table", "m1", world=world)
    renamed = Agent(name="front", description="does it", instructions="front", tools=world.tools())
    async with runtime(dsn, agent=renamed) as moorline:
        with pytest.raises(AgentError, match="its agents have changed since"):
            await say(moorline, "book table", "m1")
    assert await booked(dsn) == ["table"]


async def test_a_model_that_answers_otherwise_on_a_rerun_is_not_asked(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    def contrary(request: ModelRequest) -> ModelReply:
        if after_tools(request):
            return obedient(request)
        return ModelReply(calls=(Call(name="ring", arguments={"what": "alarm"}),))

    await crashed(stack, dsn, connection, "book table", "m1", world=world)
    async with runtime(dsn, contrary, world=world) as moorline:
        assert await say(moorline, "book table", "m1") == "1: table"
    assert (await booked(dsn), world.calls) == (["table"], [])


async def test_effects_of_a_burst_that_failed_are_not_repeated_by_any_of_its_messages(
    stack: AsyncExitStack, dsn: str, connection: Connection, world: World
) -> None:
    """The merged messages stay together, so they have one journal."""
    assert [type(error) for error in await failed_burst(dsn, world)] == [AgentError] * 2
    assert await booked(dsn) == ["table"]
    async with runtime(dsn, world=world) as moorline:
        second = await say(moorline, "book table", "m2")
        assert (second, await say(moorline, "book table", "m1")) == ("3: table", second)
    assert await booked(dsn) == ["table"]
