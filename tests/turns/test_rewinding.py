"""A conversation is rewound to what an earlier turn left: exactly that, or it is refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from moorline import Agent, GraphAgent, Moorline, Reply, Resume, Settings, ToolContext, tool
from moorline.errors import NothingWaits, SessionBusy, TurnNotKept, UsageError
from moorline.manager import AgentProtocol, StartOver
from moorline.past_turns import PastTurns
from moorline.testing import Script
from moorline_agents.transport import rule_client
from moorline_checkpoint.database import Database
from moorline_checkpoint.rewinding import rewind
from moorline_checkpoint.turns import Turns

from ..runtime.conftest import agent, counting
from .claims import Connection, answer, begin, claim, expire_lease, message, record
from .runtimes import Stall, Thing, World, execute, in_queue, runtime, say

SCRIPT = [
    "hair one",
    "hand over to graph",
    "hair two",
    "bye",
    "desk three",
    "hair four",
    "start over",
    "hair five",
    "hand over to nails",
    "nails six",
    "bye",
    "graph seven",
    "hair eight",
    "nine",
]
"""Agents that come and go, and one that is silent for long."""


def counting_graph() -> GraphAgent:
    """A graph that says how many messages of the person it knows."""

    def tell(state: MessagesState) -> dict[str, Any]:
        known = [each.content for each in state["messages"] if each.type == "human"]
        return {"messages": [("ai", f"graph {len(known)}: {known[-1]}")]}

    graph = StateGraph(MessagesState).add_node("tell", tell).add_edge(START, "tell")
    return GraphAgent(name="graph", description="counts", graph=graph.compile(), keeps_session=False)


def open_moorline(dsn: str, *agents: AgentProtocol, **settings: Any) -> Moorline:
    ours = agents or (agent("hair"), agent("nails"), agent("desk", keeps_session=False), counting_graph())
    return Moorline(Settings(database_url=dsn, **settings), agents=ours, client=lambda: rule_client(counting))


async def holder(moorline: Moorline, device: str) -> str | None:
    session = await moorline.session(device)
    return session.active_agent if session else None


async def histories(moorline: Moorline, device: str) -> dict[str, Any]:
    """What each agent remembers, without the IDs of calls."""
    values = (await moorline.state(device)).values
    shown = {name: known for name, known in values.items() if name.endswith(".history") and known}
    return {name: [(each["role"], each["content"]) for each in known] for name, known in shown.items()}


async def test_a_rewound_conversation_goes_on_as_one_that_went_no_further(dsn: str) -> None:
    async with open_moorline(dsn, keep_turns=4) as moorline:
        for text in SCRIPT:
            await asyncio.gather(*(say(moorline, text, device=f"rewound-{n}") for n in range(len(SCRIPT))))
        kept = [n for n in range(len(SCRIPT)) if n > len(SCRIPT) - len(SCRIPT) % 4 - 4]
        assert kept == [9, 10, 11, 12, 13]
        for n in range(len(SCRIPT)):
            rewound, control = f"rewound-{n}", f"control-{n}"
            if n not in kept:
                with pytest.raises(TurnNotKept, match="no longer kept"):
                    await moorline.rewind(rewound, n)
                assert await say(moorline, "ten", device=rewound) == "hair 5: ten"
                continue
            for text in SCRIPT[:n]:
                await say(moorline, text, device=control)
            done = await moorline.rewind(rewound, n)
            assert (done.turn_no, done.effects) == (n, ())
            assert await holder(moorline, rewound) == await holder(moorline, control)
            for text in ("probe", "hand over to graph"):
                replies = [await say(moorline, text, device=device) for device in (rewound, control)]
                assert (replies[0], replies[0].agent) == (replies[1], replies[1].agent)
                assert await histories(moorline, rewound) == await histories(moorline, control)


async def test_a_conversation_that_was_never_pruned_can_begin_anew(dsn: str) -> None:
    async with open_moorline(dsn) as moorline:
        for text in SCRIPT:
            await say(moorline, text)
        await moorline.rewind("d1", 3)
        assert await holder(moorline, "d1") == "hair"
        assert await say(moorline, "again") == "hair 4: again"
        await moorline.rewind("d1", 0)
        assert await holder(moorline, "d1") is None
        assert await say(moorline, "hair first") == "hair 1: hair first"
        shown = [(entry.record.turn_no, entry.rewound_at is not None) for entry in await moorline.transcript("d1")]
        assert shown == [(n, n < 16) for n in range(1, 17)]


async def test_what_was_rewound_is_said_to_no_agent_and_no_router(dsn: str, turns: Turns) -> None:
    async with open_moorline(dsn) as moorline:
        for text in ("hair one", "two", "three"):
            await say(moorline, text)
        await moorline.rewind("d1", 1)
        await say(moorline, "four")
    turn = await claim(turns, message("m9"))
    past = await PastTurns(turn, turns=turns, start_over=StartOver(words=frozenset())).last(2)
    assert [each.texts for each in past] == [("hair one",), ("four",)]


async def test_later_effects_are_named_and_stand(dsn: str) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    world = World()
    world.refused.add("nothing")
    async with runtime(dsn, world=world) as moorline:
        for text in ("book chair", "book table nothing", "ring bell nothing", "hello"):
            await say(moorline, text)
        for _ in range(2):  # called again it says the same
            done = await moorline.rewind("d1", 1)
            told = [(each.turn_no, each.agent, each.name, each.intent, each.result) for each in done.effects]
            assert told == [
                (2, "desk", "book", {"what": "table"}, {"booked": "table"}),
                (3, "desk", "ring", {"what": "bell"}, {"rung": "bell"}),
                (3, "desk", "ring", {"what": "nothing"}, None),
            ]
            refused = done.effects[-1].refused
            assert refused is not None
            assert refused["code"] == "out"
        assert [row["what"] for row in await execute(dsn, "SELECT what FROM bookings")] == ["chair", "table"]
        assert await say(moorline, "and now") == "2: and now"


async def test_a_call_that_only_asked_is_no_effect(dsn: str) -> None:
    async def ring(thing: Thing, context: ToolContext) -> dict[str, Any]:
        """Rings, after a question."""
        return {"rung": await context.ask(f"{thing.what}?", options=("yes", "no"))}

    ringing = Agent(name="desk", description="rings", instructions="desk", tools=[tool(effect="outside")(ring)])
    async with runtime(dsn, agent=ringing) as moorline:
        await say(moorline, "hello")
        assert (await say(moorline, "ring bell")).interrupt is not None
        assert (await moorline.rewind("d1", 1)).effects == ()
        await say(moorline, "ring bell")
        await say(moorline, "yes")
        [effect] = (await moorline.rewind("d1", 1)).effects
        assert (effect.intent, effect.result) == ({"what": "bell"}, {"rung": "yes"})


async def test_it_comes_between_turns_after_the_messages_that_wait(dsn: str) -> None:
    stall = Stall(lambda request: request.said[-1] == "slow")
    async with runtime(dsn, stall) as moorline:
        await say(moorline, "one")
        running = asyncio.create_task(say(moorline, "slow"))
        await stall.reached.wait()
        waiting = asyncio.create_task(say(moorline, "three"))
        await in_queue(dsn, 1)
        with pytest.raises(SessionBusy):
            await moorline.rewind("d1", 1, timeout=0.3)
        rewinding = asyncio.create_task(moorline.rewind("d1", 1))
        stall.go_on.set()
        assert [await running, await waiting] == ["2: slow", "3: three"]
        await rewinding
        assert [entry.record.turn_no for entry in await moorline.transcript("d1") if entry.rewound_at is None] == [1]
        assert await say(moorline, "four") == "2: four"


async def test_a_message_that_waits_is_answered_first(dsn: str, turns: Turns) -> None:
    first = await claim(turns, message("m1"))
    await begin(turns, message("m2"))
    await turns.commit(first, record(first))
    database = Database(dsn)
    assert await rewind(database, "d1", 0, keep_turns=20) is None
    await answer(turns, message("m2"))
    assert await rewind(database, "d1", 0, keep_turns=20) is not None
    await database.close()


async def test_a_turn_that_is_not_there_or_was_rewound_is_refused_and_nothing_changes(dsn: str) -> None:
    async with open_moorline(dsn) as moorline:
        for device in ("nobody", "d1"):
            with pytest.raises(TurnNotKept, match="no turn 7"):
                await moorline.rewind(device, 7)
            await say(moorline, "hair one")
        await moorline.rewind("d1", 1)
        not_a_turn: Any
        for not_a_turn in (2, -1, 2**70, None, True, 1.5, "1"):
            with pytest.raises(TurnNotKept, match=f"no turn {not_a_turn}"):
                await moorline.rewind("d1", not_a_turn)
        assert await say(moorline, "two") == "hair 2: two"


def asking() -> GraphAgent:
    def ask(state: MessagesState) -> dict[str, Any]:
        assert state["messages"]
        return {"messages": [("ai", f"heard {interrupt('Really?')}")]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask")
    return GraphAgent(name="asker", description="asks", graph=graph.compile())


async def resumed(moorline: Moorline, asked: Reply, value: str) -> Reply:
    assert asked.interrupt is not None
    return await moorline.run(Resume(interrupt_id=asked.interrupt.id, value=value), {"device_id": "d1"})


async def test_a_question_that_waits_is_closed_and_one_that_was_asked_is_not_asked_again(dsn: str) -> None:
    async with open_moorline(dsn, asking()) as moorline:
        asked = await say(moorline, "one")
        assert asked.interrupt is not None
        assert await resumed(moorline, asked, "yes") == "heard yes"
        asked = await say(moorline, "three")
        assert asked.interrupt is not None
        with pytest.raises(TurnNotKept, match="stopped to ask"):
            await moorline.rewind("d1", 1)
        assert await moorline.pending("d1") is not None
        await moorline.rewind("d1", 2)
        assert await moorline.pending("d1") is None
        with pytest.raises(NothingWaits):
            await resumed(moorline, asked, "yes")
        again = await say(moorline, "four")
        assert again.interrupt is not None
        assert await resumed(moorline, again, "no") == "heard no"


class Heard(BaseModel):
    text: str


async def test_an_answer_for_programs_is_no_question(dsn: str) -> None:
    desk = Agent(name="desk", description="desk", instructions="desk", output=Heard)
    answers = [Heard(text=text).model_dump_json() for text in ("one", "two", "three")]
    async with Moorline(Settings(database_url=dsn), agents=[desk], client=lambda: rule_client(Script(*answers))) as m:
        for text in ("one", "two"):
            await say(m, text)
        assert (await m.rewind("d1", 1)).turn_no == 1
        assert (await say(m, "three")).output == Heard(text="three")
        assert [entry.rewound_at is None for entry in await m.transcript("d1")] == [True, False, True]


async def test_states_are_those_of_the_kept_turns_newest_first(dsn: str) -> None:
    async with open_moorline(dsn, keep_turns=4) as moorline:
        for n in range(1, 11):
            await say(moorline, f"hair {n}")
        await moorline.link("d2", await moorline.link_code("d1"))
        for device in ("d1", "d2"):
            history = [each async for each in moorline.history(device)]
            assert [each.turn_no for each in history] == [10, 9, 8, 7, 6, 5]
            for each in history:
                said = [m["content"] for m in each.state.values["hair.history"] if m["role"] == "user"]
                assert said == [f"hair {n}" for n in range(1, each.turn_no + 1)]
            assert (await moorline.state(device)).values == history[0].state.values
        await moorline.rewind("d2", 6)
        assert (await moorline.state("d1")).values == history[4].state.values
        assert [each.turn_no async for each in moorline.history("d1")] == [6, 5]


async def test_states_of_an_agent_s_own_graph_are_those_that_stood_after_the_kept_turns(dsn: str) -> None:
    said = [f"{'graph' if n in (1, 4, 8) else 'desk'} {n}" for n in range(10)]
    async with open_moorline(dsn, keep_turns=4) as moorline:
        for text in said:
            await say(moorline, text)

        async def shown() -> dict[int, list[str]]:
            """What the graph knew of the person's messages after each turn."""
            states = [each async for each in moorline.history("d1", agent="graph")]
            return {
                each.turn_no: [m.content for m in each.state.values["messages"] if m.content in said] for each in states
            }

        stood = {n: [text for text in said[:n] if text.startswith("graph")] for n in range(1, 11)}
        assert await shown() == {n: stood[n] for n in (10, 9, 8, 7, 6, 5)}
        latest, *_ = [each async for each in moorline.history("d1", agent="graph")]
        assert (await moorline.state("d1", agent="graph")).values == latest.state.values
        await moorline.rewind("d1", 7)
        assert await shown() == {n: stood[n] for n in (7, 6, 5)}

        for text in ("desk", "graph", "desk"):
            await say(moorline, text, device="d2")
        assert [each.turn_no async for each in moorline.history("d2", agent="graph")] == [3, 2]
        for agent in ("desk", "nobody"):
            with pytest.raises(UsageError, match="there are: graph"):
                await moorline.state("d1", agent=agent)
            with pytest.raises(UsageError, match="there are: graph"):
                await anext(moorline.history("d1", agent=agent))


async def test_another_process_goes_on_from_where_it_was_rewound(dsn: str, connection: Connection) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(open_moorline(dsn)) for _ in range(2)]
        for n, moorline in enumerate((here, there, here, there)):
            await say(moorline, f"hair {n}")
        await here.rewind("d1", 2)
        assert await say(there, "a") == "hair 3: a"
        assert await say(here, "b") == "hair 4: b"
        await there.rewind("d1", 5)
        assert await say(here, "c") == "hair 4: c"
        with pytest.raises(AssertionError):
            await expire_lease(connection)  # no turn is open
