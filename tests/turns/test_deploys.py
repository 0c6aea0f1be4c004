"""A deploy changes the agents over open questions: who can still answer them does, all others are told, and every
conversation goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorline import Moorline, Settings, Texts
from moorline_agents.agent import Agent
from moorline_agents.history import CLOSED
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from .asking import Meaning, Nothing, calling, desk, desk_tools, resumed
from .runtimes import execute, runtime, say
from .test_asking import booked, bookings

__all__ = ["bookings"]

GONE = Texts().closed
OUTDATED = f'{{"error": "{CLOSED["outdated"]}", "code": "outdated"}}'


def menu(*options: str, name: str = "menu") -> Agent:
    """An agent whose only tool has this one question."""

    @tool(name=name)
    async def ask(_: Nothing, context: ToolContext) -> dict[str, str]:
        """Asks."""
        return {"chosen": await context.ask("Which dish?", options=options)}

    return Agent(name="desk", description="does it", instructions="desk", tools=[ask])


def opened(dsn: str, *agents: Agent) -> Moorline:
    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        return calling(request)

    return Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(rules))


async def test_a_question_is_answered_if_its_tool_and_its_options_still_exist(dsn: str) -> None:
    async with opened(dsn, menu("soup", "fish")) as moorline:
        await say(moorline, "menu", device="a")
        asked = await say(moorline, "menu", device="b")
    # Other instructions, another tool, one option more, and an agent beside it.
    changed = replace(menu("soup", "fish", "pie"), instructions="new", tools=[*menu("soup", "fish", "pie").tools])
    async with opened(dsn, changed, desk([], name="other")) as moorline:
        assert await say(moorline, "fish", device="a") == 'menu | {"chosen": "fish"}'
        assert await resumed(moorline, asked, "soup", "b") == 'menu | {"chosen": "soup"}'


async def test_an_agent_that_was_renamed_is_answered_and_keeps_what_it_knows(bookings: str) -> None:
    done = list[Any]()
    async with opened(bookings, desk(done)) as moorline:
        await say(moorline, "hello")
        await say(moorline, "book at 9")
        asked = await say(moorline, "book at 10", device="d2")
    model = Meaning()
    renamed = replace(desk(done, name="reception"), aliases=["desk"])
    async with runtime(bookings, model, agent=renamed) as moorline:
        assert '"at": 9' in await say(moorline, "yes")
        assert '"at": 10' in await resumed(moorline, asked, "yes", "d2")
        await say(moorline, "thanks")
        assert [m["content"] for m in model.requests[-1].messages if m["role"] == "user"] == [
            "hello",
            "book at 9",
            "thanks",
        ]
        assert await say(moorline, "book at 11") == "Book the table at 11? (yes / no)"
        assert '"at": 11' in await say(moorline, "yes")
    assert len(done) == await booked(bookings) == 3


@pytest.mark.parametrize("how", ["the tool is gone", "the agent is gone"])
async def test_a_question_that_nobody_can_act_on_any_more_is_closed_with_words(dsn: str, how: str) -> None:
    async with opened(dsn, menu("soup", "fish")) as moorline:
        await say(moorline, "menu", device="a")
        asked = await say(moorline, "menu", device="b")
    others = [menu("soup", "fish", name="card")]
    if how == "the agent is gone":
        others = [desk([], name="new"), desk([], name="newer")]
    async with opened(dsn, *others) as moorline:
        told = await say(moorline, "fish", device="a")
        assert told.notice == GONE
        assert told == f"fish | {OUTDATED if how == 'the tool is gone' else ''}"
        reply = await resumed(moorline, asked, "fish", "b")
        assert (reply, reply.agent) == (GONE, None)
        for device in "ab":
            assert await moorline.pending(device) is None
            hello = await say(moorline, "hello", device=device)
            assert hello.startswith("hello |")
            assert hello.notice is None


async def test_a_question_whose_options_changed_is_closed_if_the_answer_fits_no_more(dsn: str) -> None:
    async with opened(dsn, menu("soup", "fish")) as moorline:
        await say(moorline, "menu", device="a")
        asked = await say(moorline, "menu", device="b")
    async with opened(dsn, menu("pie", "cake")) as moorline:
        assert '"code": "question_changed", "answer": "fish"' in await say(moorline, "fish", device="a")
        assert '"code": "question_changed", "answer": "soup"' in await resumed(moorline, asked, "soup", "b")
        assert await say(moorline, "menu", device="a") == "Which dish? (pie / cake)"


async def test_a_confirmation_that_is_gone_lets_nothing_run_and_one_that_is_new_asks(bookings: str) -> None:
    done = list[Any]()
    async with runtime(bookings, calling, agent=desk(done)) as moorline:
        await say(moorline, "book")
        await say(moorline, "book", device="d3")
    async with runtime(bookings, calling, agent=desk(done, confirm=None)) as moorline:
        assert '"code": "question_changed"' in await say(moorline, "yes", device="d3")
        assert '"code": "not_confirmed"' in await say(moorline, "no")
        assert (done, await booked(bookings)) == ([], 0)
        asked = await say(moorline, "seat", device="d2")
    # Now `seat`, which waits for an answer, has to be confirmed first, and that answer is no yes.
    confirmed = replace(desk(done), tools=[replace(desk_tools(done)["seat"], confirm="Seat you?")])
    async with runtime(bookings, calling, agent=confirmed) as moorline:
        assert await resumed(moorline, asked, {"count": 2}, "d2") == "Seat you? (yes / no)"
        assert await say(moorline, "yes", device="d2") == "How many are you, and where?"
        assert [what for what, _ in done] == ["asks", "asks"]


@pytest.mark.parametrize(("sessions", "questions"), [(24, 12), pytest.param(200, 50, marks=pytest.mark.laboratory)])
async def test_a_deploy_over_open_sessions_loses_no_message_and_leaves_nobody_stuck(
    bookings: str, sessions: int, questions: int
) -> None:
    done = list[Any]()
    before = [desk(done), desk(done, name="bar"), desk(done, name="lounge")]
    renamed = replace(desk(done, name="terrace"), aliases=["lounge"])
    after = [desk(done, "book", "menu"), renamed, desk(done, name="new")]

    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            wanted = (request.messages[-1]["content"] or "").split()[-1]
            names = request.functions["route"]["parameters"]["properties"]["agent"]["enum"]
            return ModelReply(calls=(Call(name="route", arguments={"agent": wanted if wanted in names else "new"}),))
        return calling(request)

    def app(agents: list[Agent]) -> Moorline:
        return Moorline(Settings(database_url=bookings), agents=agents, client=lambda: rule_client(rules))

    kinds = [("book", "desk"), ("menu", "desk"), ("seat", "desk"), ("book", "bar"), ("book", "lounge"), ("pay", "desk")]
    asked = {}
    async with app(before) as moorline:
        for number in range(sessions):
            tool_name, agent = kinds[number % len(kinds)]
            text = f"{tool_name} at {agent}" if number < questions else f"hello {agent}"
            asked[f"d{number}"] = await say(moorline, text, device=f"d{number}")
        assert sum(reply.interrupt is not None for reply in asked.values()) == questions
    told = {}
    async with app(after) as moorline:
        for number, (device, reply) in enumerate(asked.items()):
            answer = "fish" if reply.startswith("Which") else "yes"
            if reply.interrupt is not None and number % 2:
                told[device] = await resumed(moorline, reply, answer, device)
            else:
                told[device] = await say(moorline, answer, device=device)
        for device in asked:
            while (question := await moorline.pending(device)) is not None:  # `menu` asks twice
                await say(moorline, question.options[0], device=device)
            assert (await say(moorline, "hello", device=device)).startswith("hello |")
    for number in range(questions):
        reply, (tool_name, agent) = told[f"d{number}"], kinds[number % len(kinds)]
        if tool_name in ("seat", "pay") or agent == "bar":
            assert GONE in (reply, reply.notice), (reply, tool_name, agent)
        else:
            assert reply.startswith("How much") or '"booked"' in reply or '"at": 9' in reply, (reply, tool_name, agent)
    yeses = sum(kinds[number % len(kinds)] in (("book", "desk"), ("book", "lounge")) for number in range(questions))
    assert await booked(bookings) == yeses
    lost = "SELECT count(*) FROM conversation_messages WHERE status NOT IN ('done', 'interrupted')"
    assert (await execute(bookings, lost))[0]["count"] == 0
