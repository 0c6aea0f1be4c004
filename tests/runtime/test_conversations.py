"""A conversation continues with its agent and everything the agent knew, whatever runtime its messages land in."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from moorline import Moorline, Settings, TurnContext
from moorline.errors import AgentError, SessionBusy, TurnTimeout
from moorline.testing import Script
from moorline_agents.transport import ModelReply, ModelRequest

from .conftest import Open, agent, counting


async def say(moorline: Moorline, text: str, device: str = "d1") -> str:
    return str(await moorline.run(text, {"device_id": device}))


async def test_the_agent_and_its_history_survive_a_restart(open_moorline: Open) -> None:
    async with open_moorline() as first:
        assert await say(first, "hair please") == "hair 1: hair please"
    async with open_moorline() as second:
        reply = await second.run("tomorrow", {"device_id": "d1"})
        assert reply == "hair 2: tomorrow"
        assert (reply.agent, reply.turn_no, reply.replayed) == ("hair", 2, False)


async def test_a_locked_device_asks_no_router(open_moorline: Open, model: Script) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        model.requests.clear()
        await say(moorline, "nails please")
    assert ["route" in request.functions for request in model.requests] == [False]


async def test_an_agent_without_sessions_takes_no_lock(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        assert await say(moorline, "desk hello") == "desk 1: desk hello"
        assert await moorline.session("d1") is None
        assert await say(moorline, "hair please") == "hair 1: hair please"


async def test_handing_over_moves_the_lock_and_an_agent_come_back_to_knows_its_own_messages(
    open_moorline: Open,
) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        reply = await moorline.run("hand over to nails", {"device_id": "d1"})
        assert reply == "nails 1: hand over to nails"
        assert (reply.agent, reply.handoffs) == ("nails", ("nails",))
        session = await moorline.session("d1")
        assert session is not None
        assert session.active_agent == "nails"
        # Its own two messages and this one: what nails was told is not hair's.
        assert await say(moorline, "hand over to hair") == "hair 3: hand over to hair"


async def test_handing_over_to_an_agent_without_sessions_lets_the_lock_go(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        assert await say(moorline, "hand over to desk") == "desk 1: hand over to desk"
        assert await moorline.session("d1") is None


async def test_handing_a_message_round_in_circles_is_an_error_and_changes_nothing(open_moorline: Open) -> None:
    def restless(request: ModelRequest) -> ModelReply:
        other = "nails" if request.system == "hair" else "hair"
        if "round" in str(request.messages[-1]["content"]) and "route" not in request.functions:
            return counting(
                ModelRequest(
                    model="m",
                    messages=(request.messages[0], {"role": "user", "content": f"hand over to {other}"}),
                    tools=request.tools,
                )
            )
        return counting(request)

    async with open_moorline(rules=restless) as moorline:
        await say(moorline, "hair please")
        with pytest.raises(AgentError, match="handed over 5 times"):
            await say(moorline, "round and round")
        assert await say(moorline, "now") == "hair 2: now"


async def test_an_agent_that_is_done_lets_the_lock_go_but_keeps_what_it_knows(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        assert await say(moorline, "bye") == "hair 2: bye"
        assert await moorline.session("d1") is None
        assert await say(moorline, "hair again") == "hair 3: hair again"


async def test_a_lock_of_an_agent_that_is_gone_falls_back_to_routing(open_moorline: Open) -> None:
    async with open_moorline(agents=[agent("barber"), agent("desk", keeps_session=False)]) as moorline:
        await say(moorline, "barber please")
    async with open_moorline() as moorline:
        assert await say(moorline, "hair please") == "hair 1: hair please"


async def test_an_agents_own_ttl_is_the_sessions(open_moorline: Open) -> None:
    async with open_moorline(agents=[agent("hair", session_ttl=60)]) as moorline:
        await say(moorline, "hair please")
        session = await moorline.session("d1")
        assert session is not None
        assert 59 <= (session.expires_at - session.locked_at).total_seconds() <= 60


async def test_the_same_message_id_gets_the_stored_reply(open_moorline: Open, model: Script) -> None:
    async with open_moorline() as moorline:
        context = {"device_id": "d1", "message_id": "m1"}
        first = await moorline.run("hair please", context)
        asked = len(model.requests)
        again = await moorline.run("hair please", context)
        assert (again, again.replayed, again.turn_no, again.agent) == (first, True, 1, "hair")
        assert len(model.requests) == asked
        assert await say(moorline, "next") == "hair 2: next"


async def test_a_hundred_devices_at_once_keep_apart(open_moorline: Open) -> None:
    devices = [f"device-{number}" for number in range(100)]
    async with open_moorline() as moorline:
        for word in ("hair", "second", "third"):
            replies = await asyncio.gather(*(say(moorline, f"{word} of {device}", device) for device in devices))
            count = ("hair", "second", "third").index(word) + 1
            assert replies == [f"hair {count}: {word} of {device}" for device in devices]


async def test_fifty_messages_at_once_on_one_device_are_answered_in_order(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        replies = await asyncio.gather(*(say(moorline, f"message {number}") for number in range(50)))
        # The model is shown the last of them, and the 40 that its agent keeps.
        assert replies == [f"hair {number + 2}: message {number}" for number in range(50)]
        assert [entry.record.turn_no for entry in await moorline.transcript("d1")] == list(range(1, 52))


async def test_two_runtimes_take_turns_on_one_device(open_moorline: Open) -> None:
    async with open_moorline() as one, open_moorline() as other:
        await say(one, "hair please")
        replies = await asyncio.gather(*(say((one, other)[number % 2], f"m{number}") for number in range(20)))
        assert sorted(int(reply.split()[1].rstrip(":")) for reply in replies) == list(range(2, 22))


async def test_a_busy_device_rejects_where_the_caller_says_so(open_moorline: Open) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: ModelRequest) -> ModelReply:
        if "wait" in str(request.messages[-1]["content"]) and "route" not in request.functions:
            reached.set()
            await go_on.wait()
        return counting(request)

    async with open_moorline(rules=slow) as moorline:
        waiting = asyncio.create_task(say(moorline, "hair wait"))
        await reached.wait()
        with pytest.raises(SessionBusy) as caught:
            await moorline.run("now!", TurnContext(device_id="d1", on_busy="reject"))
        assert 0 < caught.value.retry_after <= 15
        go_on.set()
        assert await waiting == "hair 1: hair wait"
        assert await say(moorline, "next") == "hair 2: next"


async def test_a_turn_that_takes_too_long_is_given_up_and_changes_nothing(open_moorline: Open) -> None:
    async def stuck(request: ModelRequest) -> ModelReply:
        if "stuck" in str(request.messages[-1]["content"]):
            await asyncio.Event().wait()
        return counting(request)

    async with open_moorline(rules=stuck) as moorline:
        await say(moorline, "hair please")
        with pytest.raises(TurnTimeout, match=r"0\.2 s"):
            await moorline.run("stuck", {"device_id": "d1", "timeout": 0.2})
        assert await say(moorline, "next") == "hair 2: next"


async def test_the_transcript_has_every_turn_with_its_message(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        await say(moorline, "nul \0 in it")
        entries = await moorline.transcript("d1")
    assert [(entry.texts, entry.record.reply, entry.record.agent) for entry in entries] == [
        (("hair please",), "hair 1: hair please", "hair"),
        (("nul \0 in it",), "hair 2: nul \0 in it", "hair"),
    ]


async def test_an_erased_device_begins_anew(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        await moorline.erase("d1")
        assert await moorline.transcript("d1") == []
        assert await moorline.session("d1") is None
        assert await say(moorline, "hair hello") == "hair 1: hair hello"


async def test_a_renamed_agent_takes_its_sessions_and_what_it_knows_along(open_moorline: Open) -> None:
    async with open_moorline(agents=[agent("barber"), agent("desk", keeps_session=False)]) as moorline:
        await say(moorline, "barber please")
    renamed = replace(agent("hair"), aliases=["barber"])
    async with open_moorline(agents=[renamed, agent("desk", keeps_session=False)]) as moorline:
        assert await say(moorline, "again") == "hair 2: again"
        session = await moorline.session("d1")
        assert session is not None
        assert session.active_agent == "hair"
    async with open_moorline() as moorline:
        assert await say(moorline, "once more") == "hair 3: once more"


@pytest.mark.parametrize(("first", "second"), [("hair", "nails"), ("nails", "hair")])
async def test_an_agent_that_was_absent_for_long_knows_all_it_knew(
    open_moorline: Open, settings: Settings, first: str, second: str
) -> None:
    """Two releases take turns, one of which does not have the agent."""
    kept = settings.model_copy(update={"keep_turns": 2})
    both = [agent("hair"), agent("nails")]
    async with open_moorline(agents=both, settings=kept) as moorline:
        for number in range(1, 36):
            assert await say(moorline, f"{first} {number}") == f"{first} {number}: {first} {number}"
        await say(moorline, "bye")
    async with open_moorline(agents=[agent(second), agent("desk", keeps_session=False)], settings=kept) as moorline:
        for number in range(1, 151):
            # A history of 160 messages is cut to half.
            shown = number if number <= 80 else 41 + (number - 81) % 40
            assert await say(moorline, f"{second} {number}") == f"{second} {shown}: {second} {number}"
        await say(moorline, "bye")
    async with open_moorline(agents=both, settings=kept) as moorline:
        assert await say(moorline, f"{first} again") == f"{first} 37: {first} again"
        assert await say(moorline, f"hand over to {second}") == f"{second} 72: hand over to {second}"


async def test_the_graph_is_one_of_langgraphs_to_look_at_and_to_go_back_in(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        for text in ("hair please", "hand over to nails", "nails again"):
            await say(moorline, text)
        graph = moorline._queue.execution.graph
        edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
        assert {("route", "hair.think"), ("hair.think", "hair.act"), ("hair.act", "nails.think")} <= edges
        config: Any = {"configurable": {"thread_id": "d1"}}
        assert (await graph.aget_state(config)).next == ()
        lengths = [
            tuple(len(snapshot.values[f"{name}.history"]) for name in ("hair", "nails"))
            async for snapshot in graph.aget_state_history(config)
        ]
        assert lengths[:3] == [(5, 4), (5, 2), (2, 0)]
        second = [snapshot async for snapshot in graph.aget_state_history(config)][1]
        edited = [{"role": "user", "content": "and my hair"}, {"role": "assistant", "content": "yes"}]
        await graph.aupdate_state(second.config, {"nails.history": tuple(edited)}, as_node="nails.think")
        assert await say(moorline, "once more") == "nails 3: once more"


@pytest.mark.parametrize("aliases", [["nails"], ["old"]])
async def test_an_alias_belongs_to_one_agent(open_moorline: Open, aliases: list[str]) -> None:
    agents = [replace(agent("hair"), aliases=aliases), replace(agent("nails"), aliases=["old"])]
    with pytest.raises(ValueError, match="alias"):
        await open_moorline(agents=agents).__aenter__()
