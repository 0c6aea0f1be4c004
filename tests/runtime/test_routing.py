"""Who answers when nobody holds the session: what the router is shown, and when no router is needed."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from moorline import Agent, Moorline, Router, Settings
from moorline.testing import Call, ModelReply, ModelRequest, Script, rule_client
from moorline_agents.model import ChatModel
from tests.turns.runtimes import in_queue

from .conftest import Open, agent, counting

CONTEXT = {"device_id": "d1"}


class Size(BaseModel):
    size: str


def routings(script: Script) -> list[ModelRequest]:
    return [request for request in script.requests if "route" in request.functions]


async def say(moorline: Moorline, *texts: str) -> None:
    for text in texts:
        await moorline.run(text, CONTEXT)


async def test_the_router_is_shown_the_last_messages_and_who_held_the_session(open_moorline: Open) -> None:
    script = Script(rules=counting)
    async with open_moorline(rules=script) as moorline:
        await say(moorline, "hair one", "and two", "three", "bye", "nails please")
    first, second = routings(script)
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert second.system.endswith("The agent that held the session last is hair.")
    assert [(message["role"], message["content"]) for message in second.messages[1:]] == [
        ("user", "and two"),
        ("assistant", "[hair] hair 2: and two"),
        ("user", "three"),
        ("assistant", "[hair] hair 3: three"),
        ("user", "bye"),
        ("assistant", "[hair] hair 4: bye"),
        ("user", "nails please"),
    ]


async def test_the_router_is_shown_nothing_from_before_the_person_started_over(open_moorline: Open) -> None:
    script = Script(rules=counting)
    async with open_moorline(rules=script) as moorline:
        await say(moorline, "hair secret", "start over", "nails please")
        await say(moorline, "bye", "hair again")
    shown = [str(routing.messages) for routing in routings(script)]
    assert len(shown) == 3
    assert not any("secret" in each for each in shown[1:])
    assert "nails please" in shown[2]


async def test_the_router_is_shown_all_that_was_said_at_once(open_moorline: Open, dsn: str) -> None:
    script, running, go_on = Script(rules=counting), asyncio.Event(), asyncio.Event()

    async def rules(request: ModelRequest) -> Any:
        if request.said[-1] == "hair slow":
            running.set()
            await go_on.wait()
        return script(request)

    async with open_moorline(rules=rules) as moorline:
        calls = [asyncio.create_task(moorline.run("hair slow", CONTEXT))]
        await running.wait()
        for number, text in enumerate(("start over", "nails are broken", "thanks"), 1):
            calls.append(asyncio.create_task(moorline.run(text, {**CONTEXT, "on_busy": "merge"})))
            await in_queue(dsn, number)
        go_on.set()
        assert {reply.agent for reply in (await asyncio.gather(*calls))[1:]} == {"nails"}
    assert routings(script)[-1].said == ("nails are broken\nthanks",)


async def test_a_router_of_ones_own(settings: Settings) -> None:
    own, script = Script(rules=counting), Script(rules=counting)
    model = ChatModel(client=lambda: rule_client(own), model="small", timeout=5)
    router = Router(history=2, instructions="Pick one.", model=model)
    agents = [agent("hair"), agent("nails")]
    async with Moorline(settings, agents=agents, client=lambda: rule_client(script), router=router) as moorline:
        await say(moorline, "hair one", "two", "bye", "nails please")
    assert not routings(script)
    last = routings(own)[-1]
    assert last.system.startswith("Pick one.\n\nThe agent that held")
    assert [message["content"] for message in last.messages[1:]] == ["bye", "[hair] hair 3: bye", "nails please"]
    without = Router(history=0)
    again = Script(rules=counting)
    async with Moorline(settings, agents=agents, client=lambda: rule_client(again), router=without) as moorline:
        await say(moorline, "bye", "hair please")
    assert [len(routing.messages) for routing in routings(again)] == [2]


@pytest.mark.parametrize("history", [-1, 101, 1.5, True, "6"])
def test_a_history_that_cannot_be_is_refused(history: Any) -> None:
    with pytest.raises(ValueError, match="a whole number from 0 to 100"):
        Router(history=history)


async def test_with_one_routable_agent_there_is_no_routing_call(open_moorline: Open) -> None:
    script = Script(rules=counting)
    hidden: Agent = replace(agent("nails"), routable=False)
    async with open_moorline(agents=[hidden, agent("hair")], rules=script) as moorline:
        assert (await moorline.run("nails please", CONTEXT)).agent == "hair"
        assert (await moorline.run("hand over to nails", CONTEXT)).agent == "nails"
        assert (await moorline.run("bye", CONTEXT)).agent == "nails"
        assert (await moorline.run("hello", CONTEXT)).agent == "hair"
    assert not routings(script)


async def test_an_agent_that_is_not_routable_is_not_offered_to_the_router(open_moorline: Open) -> None:
    script = Script(rules=counting)
    agents: list[Any] = [agent("hair"), agent("nails"), replace(agent("cellar"), routable=False)]
    async with open_moorline(agents=agents, rules=script) as moorline:
        assert (await moorline.run("cellar please", CONTEXT)).agent == "hair", "the fallback"
    [routing] = routings(script)
    assert routing.functions["route"]["parameters"]["properties"]["agent"]["enum"] == ["hair", "nails"]


async def test_somebody_has_to_be_routable(open_moorline: Open) -> None:
    with pytest.raises(ValueError, match="at least one agent that is routable"):
        async with open_moorline(agents=[replace(agent("hair"), routable=False)]):
            pass


async def test_small_talk_needs_one_model_call_a_turn(open_moorline: Open) -> None:
    script = Script(rules=counting)
    async with open_moorline(rules=script) as moorline:
        for number in range(100):
            assert (await moorline.run(f"desk hello {number}", CONTEXT)).agent == "desk"
        assert len(script.requests) == 102, "one of the router, and one that sums up the first half"
        # What is another agent's job reaches it all the same, and for no more calls than by way of the router.
        before = len(script.requests)
        assert (await moorline.run("hair please", CONTEXT)).agent == "hair"
        assert len(script.requests) == before + 2
        assert (await moorline.run("and more", CONTEXT)).agent == "hair"
        await say(moorline, "bye")
        # It answered last, so the router decides again.
        routed = len(routings(script))
        assert (await moorline.run("nails please", CONTEXT)).agent == "nails"
        assert len(routings(script)) == routed + 1


async def test_an_agent_that_is_gone_or_whose_session_was_opened_elsewhere_is_not_asked_first(
    open_moorline: Open,
) -> None:
    async with open_moorline(rules=counting) as moorline:
        await say(moorline, "desk hello")
        await moorline.set_session_lock("d1", "nails")
        assert (await moorline.run("hello", CONTEXT)).agent == "nails"
        await moorline.clear_session_lock("d1")
        assert (await moorline.run("desk hello", CONTEXT)).agent == "desk"
    script = Script(rules=counting)
    async with open_moorline(agents=[agent("hair"), agent("nails")], rules=script) as moorline:
        assert (await moorline.run("nails please", CONTEXT)).agent == "nails"
    assert len(routings(script)) == 1


async def test_an_agent_whose_answers_have_a_form_is_not_asked_first(settings: Settings) -> None:
    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": request.said[-1]}),))
        return ModelReply(text='{"size": "small"}' if request.system == "tailor" else "Hello!")

    tailor = replace(agent("tailor", keeps_session=False), output=Size)
    script = Script(rules=rules)
    desk = agent("desk", keeps_session=False)
    async with Moorline(settings, agents=[tailor, desk], client=lambda: rule_client(script)) as moorline:
        assert (await moorline.run("tailor", CONTEXT)).output == Size(size="small")
        assert await moorline.run("desk", CONTEXT) == "Hello!"
    assert len(routings(script)) == 2
