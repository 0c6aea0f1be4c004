"""Calls of one answer that only read run at the same time; the order of effects, and of results, stays."""

import asyncio
import json
from typing import Any

import pytest
from langgraph.types import interrupt

from moorline import Moorline, Reply, Resume, Settings
from moorline.errors import AgentError
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.tools import ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from ..strict_model import StrictModel
from .runtimes import Thing, runtime, say


class Desk:
    """`look` and `ask` only read; `act` has an effect. What ran, and what ended, is in `log`."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = 0
        self.most = 0
        self.together = asyncio.Event()

        @tool()
        async def look(thing: Thing, context: ToolContext) -> dict[str, str]:
            """Looks."""
            await self.runs(thing.what, thing.what.startswith("both"))
            if thing.what == "refused":
                raise ToolRefused("no")
            if thing.what == "broken":
                raise LookupError
            return {"saw": thing.what}

        @tool()
        async def ask(thing: Thing, context: ToolContext) -> dict[str, Any]:
            """Asks."""
            await self.runs(f"ask {thing.what}")
            await asyncio.sleep(0.02 if thing.what == "a" else 0)  # the first is the last to ask
            return {thing.what: interrupt(f"{thing.what}?")}

        @tool(effect="outside")
        async def act(thing: Thing, context: ToolContext) -> dict[str, str]:
            """Acts."""
            await self.runs(f"act {thing.what}")
            return {"did": thing.what}

        self.agent = Agent(name="desk", description="does it", instructions="desk", tools=[look, ask, act])

    async def runs(self, what: str, meets: bool = False) -> None:
        """Takes a moment; what meets goes on only when another runs at the same time."""
        self.log.append(what)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.running > 1:
                self.together.set()
            if meets:
                async with asyncio.timeout(5):
                    await self.together.wait()
            await asyncio.sleep(0.001)
        finally:
            self.running -= 1


def calls(request: ModelRequest) -> ModelReply:
    """Makes the calls that the person's last message names, as in `look:a act:b`; then says all results, in the order
    in which it is shown them."""
    asked = max(n for n, message in enumerate(request.messages) if message["role"] == "user")
    results = [message["content"] or "" for message in request.messages[asked:] if message["role"] == "tool"]
    if results:
        return ModelReply(text=" ".join(f"{value}" for each in results for value in json.loads(each).values()))
    named = [word.partition(":") for word in (request.messages[asked]["content"] or "").split()]
    made = tuple(Call(name=name, arguments={"what": what}) for name, _, what in named if name in request.functions)
    return ModelReply(calls=made) if made else ModelReply(text="heard")


async def answered(moorline: Moorline, reply: Reply, value: str) -> Reply:
    assert reply.interrupt is not None
    return await moorline.run(Resume(interrupt_id=reply.interrupt.id, value=value), {"device_id": "d1"})


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_reads_run_at_the_same_time_and_effects_in_their_order(dsn: str, desk: Desk) -> None:
    model = StrictModel(rules=calls)
    async with runtime(dsn, model, agent=desk.agent) as moorline:
        reply = await say(moorline, "look:both1 look:both2 act:x look:both3 look:refused look:both4 act:y act:z")
    assert reply == "both1 both2 x both3 no both4 y z"
    assert desk.log.index("act x") == 2
    assert desk.log[-2:] == ["act y", "act z"]
    assert (desk.most, model.refused) == (3, [])


async def test_a_read_that_asks_is_asked_alone_and_the_others_are_kept(dsn: str, desk: Desk) -> None:
    model = StrictModel(rules=calls)
    async with runtime(dsn, model, agent=desk.agent) as moorline:
        question = await say(moorline, "look:a ask:b look:c act:d")
        assert (question, sorted(desk.log)) == ("b?", ["a", "ask b", "ask b", "c"])
        assert await answered(moorline, question, "yes") == "a yes c d"
        assert [each for each in desk.log if each != "ask b"] == ["a", "c", "act d"]
        assert await say(moorline, "hello") == "heard"
    assert model.refused == []


async def test_reads_that_all_ask_get_each_its_own_answer(dsn: str, desk: Desk) -> None:
    async with runtime(dsn, calls, agent=desk.agent) as moorline:
        question = await say(moorline, "ask:a ask:b look:c ask:d")
        for what in ("a", "b", "d"):
            assert question == f"{what}?"
            question = await answered(moorline, question, f"for-{what}")
    assert question == "for-a for-b c for-d"
    assert desk.log.count("c") == 1


async def test_a_question_among_reads_that_nobody_answers_is_closed(dsn: str, desk: Desk) -> None:
    model = StrictModel(rules=calls)
    async with runtime(dsn, model, agent=desk.agent) as moorline:
        assert await say(moorline, "look:a ask:b look:c") == "b?"
        assert await say(moorline, "hello") == "heard"
    assert model.refused == []
    results = [message["content"] or "" for message in model.requests[-1].messages if message["role"] == "tool"]
    assert [[*json.loads(each)] for each in results] == [["saw"], ["error", "code"], ["saw"]]


async def test_one_that_fails_ends_the_others(dsn: str, desk: Desk) -> None:
    async with runtime(dsn, calls, agent=desk.agent) as moorline:
        with pytest.raises(AgentError, match="LookupError"):
            await say(moorline, "look:a look:broken look:c")
        assert desk.running == 0


async def test_a_hand_over_beside_reads_keeps_its_place(dsn: str, desk: Desk) -> None:
    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        if request.system == "other":
            return ModelReply(text="other here")
        over = Call(name="hand_over", arguments={"agent": "other", "reason": "asked"})
        looks = [Call(name=name, arguments={"what": name}) for name in ("ask", "look", "look")]
        if request.messages[-1]["role"] == "tool":
            return ModelReply(text="not handed over")
        return ModelReply(calls=(*looks, over))

    other = Agent(name="other", description="other", instructions="other")
    script = Script(rules=rules)
    async with Moorline(
        Settings(database_url=dsn), agents=[desk.agent, other], client=lambda: rule_client(script)
    ) as moorline:
        question = await say(moorline, "go")
        assert question == "ask?"
        reply = await answered(moorline, question, "yes")
        assert (reply, reply.handoffs) == ("other here", ("other",))
