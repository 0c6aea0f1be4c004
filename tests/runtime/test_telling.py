"""What a turn does is told once, in order: by agents of the kit, by graphs, by the manager, and by a rerun."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
from langchain_core.tools import tool as langchain_tool
from pydantic import BaseModel

from moorline import (
    Agent,
    Asked,
    Event,
    HandedOver,
    ModelFinished,
    Moorline,
    Resume,
    SessionChanged,
    Settings,
    ToolContext,
    ToolFinished,
    ToolRefused,
    ToolStarted,
    TurnFinished,
    TurnStarted,
    UsageReported,
    tool,
)
from moorline.manager import AgentProtocol
from moorline_agents.messages import Usage
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from ..turns.runtimes import World, crashed, obedient
from .conftest import Open, agent
from .test_events import check, told
from .test_graph_agents import Telling, front, says, with_tools

QUIET = {"text_delta", "usage_reported", "model_started"}


class Thing(BaseModel):
    what: str


@tool()
async def look(thing: Thing, context: ToolContext) -> str:
    """Looks."""
    if thing.what == "nothing":
        raise ToolRefused("There is nothing.", code="nothing")
    return f"{thing.what} is red"


@tool()
async def ask(thing: Thing, context: ToolContext) -> Any:
    """Asks."""
    from langgraph.types import interrupt

    return interrupt({"question": f"which {thing.what}?"})


def calling(request: ModelRequest) -> ModelReply:
    """Calls the tools that the message names, all at once, with the words behind the colons."""
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),), usage=Usage(5, 1))
    if request.messages[-1]["role"] == "tool":
        return ModelReply(text="Done.", usage=Usage(20, 2))
    words = (request.messages[-1]["content"] or "").split()
    calls = [
        Call(name=name, arguments=given and {"what": given}) for name, _, given in (w.partition(":") for w in words)
    ]
    return ModelReply(text="One moment.", calls=tuple(calls), usage=Usage(10, 1))


def desk() -> list[AgentProtocol]:
    return [Agent(name="desk", description="desk", instructions="desk", tools=[look, ask]), agent("hair")]


def kinds(events: Sequence[Event]) -> list[str]:
    """The types, without those that every model call has."""
    for event in events:
        check(event)
    return [event.type for event in events if event.type not in QUIET]


def of(kind: type[Any], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


async def test_a_turn_of_the_kit_is_told(open_moorline: Open) -> None:
    async with open_moorline(agents=desk(), rules=calling) as moorline:
        events = await told(moorline, "look:it look:nothing look: fly:it")
    called = ["tool_started", "tool_finished"]
    assert kinds(events) == [
        *("turn_started", "model_finished", "agent_started", "session_changed", "model_finished", "text_withdrawn"),
        *called * 4,
        *("model_finished", "turn_finished"),
    ]
    assert [(each.name, each.arguments) for each in of(ToolStarted, events)] == [
        ("look", {"what": "it"}),
        ("look", {"what": "nothing"}),
        ("look", {}),
        ("fly", {"what": "it"}),
    ]
    results = of(ToolFinished, events)
    assert [(each.result, each.refused and each.refused.get("code")) for each in results] == [
        ("it is red", None),
        (None, "nothing"),
        (None, "wrong_arguments"),
        (None, "unknown_tool"),
    ]
    assert results[1].refused == {"error": "There is nothing.", "code": "nothing"}
    assert [each.call_id for each in of(ToolStarted, events)] == [each.call_id for each in results]
    assert [(each.agent, [*each.usage.values()]) for each in of(UsageReported, events)] == [
        (None, [5, 1]),
        ("desk", [10, 1]),
        ("desk", [20, 2]),
    ]
    [routed, *answered] = of(ModelFinished, events)
    assert (routed.agent, routed.first_text, routed.failed) == (None, None, None)
    assert all(0 <= each.first_text <= each.seconds for each in answered)
    [begun] = of(TurnStarted, events)
    assert (begun.turn_no, begun.attempt, begun.recovered, begun.replayed) == (1, 1, False, False)
    [finished] = of(TurnFinished, events)
    assert finished.seconds >= answered[-1].seconds


async def test_arguments_that_are_no_json_are_told_as_they_are_kept(open_moorline: Open) -> None:
    def scribbling(request: ModelRequest) -> ModelReply:
        if "route" in request.functions or request.messages[-1]["role"] == "tool":
            return calling(request)
        return ModelReply(calls=(Call(name="look", arguments='{"what": "i'),))

    async with open_moorline(agents=desk(), rules=scribbling) as moorline:
        events = await told(moorline, "look")
    [started], [finished] = of(ToolStarted, events), of(ToolFinished, events)
    assert started.arguments == {}
    assert finished.refused["code"] == "wrong_arguments"


async def test_a_session_is_told_only_when_it_changes_hands(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        changes, overs = [], []
        for text in ("hair please", "again", "hand over to nails", "bye", "bye", "desk please", "hair", "start over"):
            events = await told(moorline, text)
            changes.append([(each.lock, each.why, each.agent) for each in of(SessionChanged, events)])
            overs += [(over.agent, over.to, over.reason) for over in of(HandedOver, events)]
    assert overs == [("hair", "nails", "asked"), ("desk", "hair", "")]
    assert changes == [
        [("hair", "taken", "hair")],
        [],
        [(None, "handed_over", "hair"), ("nails", "taken", "nails")],
        [(None, "released", "nails")],
        [],
        [],
        [("hair", "taken", "hair")],
        [(None, "started_over", None)],
    ]


async def test_a_question_is_told_when_it_can_be_answered(open_moorline: Open) -> None:
    async with open_moorline(agents=desk(), rules=calling) as moorline:
        events = await told(moorline, "ask:one")
        assert kinds(events)[-4:] == ["text_withdrawn", "tool_started", "asked", "turn_finished"]
        [asked] = of(Asked, events)
        events = await told(moorline, Resume(interrupt_id=asked.interrupt.id, value="this"))
        assert kinds(events)[:4] == ["turn_started", "agent_started", "tool_started", "tool_finished"]
        assert of(ToolFinished, events)[0].result == "this"
        assert of(TurnFinished, events)[0].reply == "Done."


async def test_a_call_is_told_once_in_each_turn_also_if_it_asks_beside_others(open_moorline: Open) -> None:
    async with open_moorline(agents=desk(), rules=calling) as moorline:
        events = await told(moorline, "ask:one look:it ask:two")
        one, _, two = [each.call_id for each in of(ToolStarted, events)]
        for given, started in (("this", [one, two]), ("that", [two])):
            [asked] = of(Asked, events)
            events = await told(moorline, Resume(interrupt_id=asked.interrupt.id, value=given))
            assert [each.call_id for each in of(ToolStarted, events)] == started
            assert [each.call_id for each in of(ToolFinished, events)] == started[:1]
        assert of(TurnFinished, events)[0].reply == "Done."


async def test_what_a_graph_does_is_told(open_moorline: Open) -> None:
    @langchain_tool
    def paint(what: str) -> str:
        """Paints, in a thread."""
        return f"{what} painted"

    model = Telling(answers=[says("Well.", spent=(10, 1), paint={"what": "it"}), says("It is painted.", spent=(20, 2))])
    async with open_moorline(agents=[front(with_tools(model, paint)), agent("hair")]) as moorline:
        events = await told(moorline, "front")
        assert kinds(events) == [
            *("turn_started", "model_finished", "agent_started", "session_changed", "text_withdrawn"),
            *("model_finished", "tool_started", "tool_finished", "model_finished", "turn_finished"),
        ]
        [started], [finished] = of(ToolStarted, events), of(ToolFinished, events)
        assert (started.name, started.call_id, started.arguments) == ("paint", "call paint", {"what": "it"})
        assert (finished.call_id, finished.result, finished.refused) == ("call paint", "it painted", None)
        assert [(each.agent, [*each.usage.values()]) for each in of(UsageReported, events)] == [
            ("front", [10, 1]),
            ("front", [20, 2]),
        ]
        assert all(each.first_text is not None for each in of(ModelFinished, events)[1:])


async def test_a_rerun_is_told_whole_with_what_it_does_not_do_again(dsn: str) -> None:
    heard: list[Event] = []
    world = World()
    connection = await asyncpg.connect(dsn)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        await connection.execute("CREATE TABLE bookings (device_id text, what text)")
        await crashed(stack, dsn, connection, "book haircut", "m1", world=world)
        desk = Agent(name="desk", description="does it", instructions="desk", tools=world.tools())
        moorline = Moorline(
            Settings(database_url=dsn),
            agents=[desk],
            client=lambda: rule_client(obedient),
            observers=[heard.append],
        )
        async with moorline:
            assert await moorline.recover() == 1
    assert kinds(heard) == [
        *("turn_started", "agent_started", "session_changed"),
        *("tool_started", "tool_finished", "model_finished", "turn_finished"),
    ]
    [begun] = of(TurnStarted, heard)
    assert (begun.recovered, begun.attempt) == (True, 2)
    assert of(ToolFinished, heard)[0].result == {"booked": "haircut"}
