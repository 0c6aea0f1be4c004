"""Tools ask a person, who answers in words or with a `Resume`; whatever is no answer closes the question."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from moorline import GraphAgent, Image, Moorline, Settings, Texts
from moorline.errors import InvalidMessage, ModelError, NothingWaits
from moorline.testing import error_reply
from moorline.transcript_text import as_markdown
from moorline_agents.agent import Agent
from moorline_agents.history import CLOSED
from moorline_agents.interpreting import ANSWER
from moorline_agents.run import RunContext
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, Reply, rule_client

from ..pictures import png
from .asking import Guests, Meaning, Nothing, calling, desk, plainly, resumed
from .runtimes import Stall, execute, in_queue, runtime, say


@pytest.fixture
async def bookings(dsn: str) -> str:
    """The address of a database with a table of bookings."""
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    return dsn


async def booked(dsn: str) -> int:
    return len(await execute(dsn, "SELECT FROM bookings"))


async def test_the_words_of_an_option_answer_in_any_process_and_no_model_is_asked_what_they_mean(dsn: str) -> None:
    model = Meaning()
    async with runtime(dsn, model, agent=desk([])) as moorline:
        dish = await say(moorline, "menu please")
        assert dish == "Which dish? (soup / fish)"
        assert dish.interrupt is not None
        assert dish.interrupt.options == ("soup", "fish")
        assert dish.interrupt.expires_at is None
    async with runtime(dsn, model, agent=desk([])) as moorline:
        size = await say(moorline, " “Fish”! ")
        assert size == "How much of it? (little / much)"
        assert size.interrupt is not None
        assert size.interrupt.expires_at is not None
    async with runtime(dsn, model, agent=desk([])) as moorline:
        assert await say(moorline, "1.") == ('menu please | {"dish": "fish", "size": "little", "by": [null, null]}')
    assert model.asked == []


async def test_other_words_are_what_a_model_says_they_mean_and_it_is_counted(dsn: str) -> None:
    model = Meaning({"den Fisch, bitte": plainly("fish")})
    async with runtime(dsn, model, agent=desk([])) as moorline:
        await say(moorline, "menu")
        size = await say(moorline, "den Fisch, bitte")
        assert size == "How much of it? (little / much)"
        assert model.asked == ["den Fisch, bitte"]
        forced = model.requests[-1].tool_choice
        assert forced == {"type": "function", "function": {"name": "answer"}}


async def test_a_model_may_write_an_option_in_its_own_way(dsn: str) -> None:
    async with runtime(dsn, Meaning({"den Fisch": plainly("Fish.")}), agent=desk([])) as moorline:
        await say(moorline, "menu")
        assert await say(moorline, "den Fisch") == "How much of it? (little / much)"


@pytest.mark.parametrize(("fails", "waits"), [(error_reply(400), False), (error_reply(500), True)])
async def test_a_model_that_cannot_be_asked_what_words_mean_leaves_nobody_stuck(
    dsn: str, fails: Reply, waits: bool
) -> None:
    """If its server refuses such requests, that is no answer; if it is down, the question waits until it is back."""

    def rules(request: ModelRequest) -> Reply:
        return fails if ANSWER in request.functions else calling(request)

    async with runtime(dsn, rules, agent=desk([])) as moorline:
        await say(moorline, "menu")
        if waits:
            with pytest.raises(ModelError):
                await say(moorline, "den Fisch")
            assert await say(moorline, "fish") == "How much of it? (little / much)"
        else:
            assert "not_answered" in await say(moorline, "den Fisch")


async def test_a_tool_that_catches_every_error_asks_all_the_same(dsn: str) -> None:
    @tool()
    async def careless(_: Nothing, context: ToolContext) -> str:
        """Asks."""
        try:
            return await context.ask("Sure?", options=("yes", "no"))
        except Exception:
            return "yes"

    agent = Agent(name="desk", description="asks", instructions="desk", tools=[careless])
    async with runtime(dsn, calling, agent=agent) as moorline:
        assert await say(moorline, "careless") == "Sure? (yes / no)"
        assert await say(moorline, "no") == 'careless | "no"'


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("yes, but with chips", {"answers": True, "more": True, "answer": "fish"}),
        ("fish at 10", plainly("fish")),  # a model that overlooks the rest
        ("fish?", plainly("fish")),
        ("meat", plainly("meat")),
        ("what is the weather like", {"answers": False, "more": True}),
        ("hm", {"answers": True, "answer": "fish"}),
        ("fish are fun", {"answers": False, "more": False, "answer": "fish"}),
        ("oh", {}),
    ],
)
async def test_whatever_is_no_answer_closes_the_question_and_is_answered_itself(
    dsn: str, said: str, means: dict[str, Any]
) -> None:
    async with runtime(dsn, Meaning({said: means}), agent=desk([])) as moorline:
        question = await say(moorline, "menu")
        reply = await say(moorline, said)
        assert reply == f'{said} | {{"error": "{CLOSED["not_answered"]}", "code": "not_answered"}}'
        assert await moorline.pending("d1") is None
        with pytest.raises(NothingWaits):
            await resumed(moorline, question, "fish")


async def test_a_message_with_files_is_no_answer(dsn: str) -> None:
    model = Meaning({"fish": plainly("fish")})

    def rules(request: ModelRequest) -> ModelReply:
        if isinstance(request.messages[-1]["content"], list):
            return ModelReply(text=request.messages[-2]["content"] or "")
        return model(request)

    async with runtime(dsn, rules, agent=desk([])) as moorline:
        await say(moorline, "menu")
        reply = await moorline.run(["fish", Image(png())], {"device_id": "d1"})
        assert reply == f'{{"error": "{CLOSED["not_answered"]}", "code": "not_answered"}}'
    assert model.asked == []


async def test_a_burst_is_read_as_one_answer(bookings: str) -> None:
    model, done = Meaning(), list[Any]()
    stall = Stall(lambda request: request.messages[-1]["content"] == "hello")

    async def rules(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["content"] == "hello":
            await stall(request)
        return model(request)

    async with runtime(bookings, rules, agent=desk(done)) as moorline:
        # The question is asked by the turn after which the burst is answered.
        first = asyncio.create_task(say(moorline, "hello", "m0"))
        await stall.reached.wait()
        asks = asyncio.create_task(say(moorline, "book", "m1"))
        await in_queue(bookings, 1)
        burst = []
        for n, text in enumerate(("yes", "but at ten")):
            burst.append(asyncio.create_task(say(moorline, text, f"b{n}", on_busy="merge")))
            await in_queue(bookings, n + 2)
        stall.go_on.set()
        await asyncio.gather(first, asks, *burst)
    assert (await booked(bookings), done, model.asked) == (0, [], ["yes\nbut at ten"])


async def test_an_answer_with_a_schema_is_an_instance_of_it(dsn: str) -> None:
    done = list[Any]()
    model = Meaning({"four of us, outside": plainly({"count": 4, "where": "garden"})})
    async with runtime(dsn, model, agent=desk(done)) as moorline:
        question = await say(moorline, "seat us")
        assert question.interrupt is not None
        assert question.interrupt.schema is not None
        assert question == "How many are you, and where?"
        told = '{"guests": 4, "where": "garden", "by": null}'
        assert await say(moorline, "four of us, outside") == f"seat us | {told}"
        assert await resumed(moorline, await say(moorline, "seat"), {"count": 2}, by="Eva") == (
            'seat | {"guests": 2, "where": "inside", "by": "Eva"}'
        )
        # A bare number is the only field's value, beyond doubt.
        await say(moorline, "stay")
        assert await say(moorline, "12") == 'stay | {"days": 12}'
    assert model.asked == ["four of us, outside"]
    keys = [key for _, key in done]
    assert [what for what, _ in done] == ["asks", "asks", "seated"] * 2
    assert len(set(keys[:3])) == 1  # the answer in words goes on under the same key
    assert len(set(keys[3:])) == 1
    assert len(set(keys)) == 2


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 13}, "many", None, {"where": "garden"}])
async def test_a_resume_that_does_not_fit_is_refused_and_the_question_waits_on(dsn: str, wrong: Any) -> None:
    done = list[Any]()
    async with runtime(dsn, calling, agent=desk(done)) as moorline:
        question = await say(moorline, "seat")
        with pytest.raises(InvalidMessage, match=r"does not fit the question.* waits on"):
            await resumed(moorline, question, wrong)
        assert await moorline.pending("d1") == question.interrupt
        assert await resumed(moorline, question, {"count": 3}) == 'seat | {"guests": 3, "where": "inside", "by": null}'
    assert [what for what, _ in done].count("seated") == 1


async def test_words_that_come_to_nothing_are_told_to_the_agent_with_what_is_wrong(dsn: str) -> None:
    model = Meaning({"thirteen": plainly({"count": 13})})
    async with runtime(dsn, model, agent=desk([])) as moorline:
        await say(moorline, "seat")
        reply = await say(moorline, "thirteen")
        assert "count: not thirteen" in reply
        assert '"code": "unfit_answer", "said": "thirteen"' in reply


async def test_a_resume_must_be_one_of_the_options(dsn: str) -> None:
    async with runtime(dsn, calling, agent=desk([])) as moorline:
        question = await say(moorline, "menu")
        for wrong in ("meat", 1, True, None, ["fish"]):
            with pytest.raises(InvalidMessage, match="one of the question's options: soup, fish"):
                await resumed(moorline, question, wrong)
        assert await resumed(moorline, question, "Soup") == "How much of it? (little / much)"


async def test_who_answered_is_told_to_the_tool_and_stands_in_the_transcript(dsn: str) -> None:
    async with runtime(dsn, calling, agent=desk([])) as moorline:
        size = await resumed(moorline, await say(moorline, "menu"), "fish", by="Eva")
        assert '"by": ["Eva", null]' in await say(moorline, "much")
        assert size.interrupt is not None
        transcript = await moorline.transcript("d1")
        assert [entry.by for entry in transcript] == [None, "Eva", None]
        assert "**Eva**" in list(as_markdown("d1", transcript))
        with pytest.raises(InvalidMessage):
            await resumed(moorline, size, "much", by="Eva")


async def test_after_its_time_nothing_answers_a_question(dsn: str) -> None:
    model = Meaning()
    async with runtime(dsn, model, agent=desk([], expires=0.05)) as moorline:
        await say(moorline, "menu")
        size = await say(moorline, "fish")
        await asyncio.sleep(0.1)
        with pytest.raises(NothingWaits, match=r"expired at .* Send a message instead"):
            await resumed(moorline, size, "much")
        assert await say(moorline, "much") == f'much | {{"error": "{CLOSED["expired"]}", "code": "expired"}}'
    assert model.asked == []


async def test_a_question_that_was_cancelled_or_that_the_person_starts_over_from_takes_no_words(bookings: str) -> None:
    done, model = list[Any](), Meaning({"start over": plainly("yes")})
    async with runtime(bookings, model, agent=desk(done)) as moorline:
        await say(moorline, "book")
        assert await moorline.cancel("d1")
        assert "not_answered" in await say(moorline, "yes")
        await say(moorline, "book")
        assert await say(moorline, "start over") == Texts().start_over
        assert await say(moorline, "yes") == "yes | "
    assert (done, await booked(bookings)) == ([], 0)


@pytest.mark.parametrize(("said", "times"), [("yes", 1), ("what for?", 0)])
async def test_a_question_that_words_answer_or_close_right_now_cannot_be_cancelled(
    bookings: str, said: str, times: int
) -> None:
    stall = Stall(lambda request: request.messages[-1]["role"] == "tool" or request.said[-1] == said)

    async def rules(request: ModelRequest) -> ModelReply:
        await stall(request)
        return calling(request)

    done = list[Any]()
    async with runtime(bookings, rules, agent=desk(done)) as moorline:
        await say(moorline, "book")
        answering = asyncio.create_task(say(moorline, said))
        await stall.reached.wait()
        cancelled = await moorline.cancel("d1")
        stall.go_on.set()
        reply = await answering
        assert (cancelled, reply.interrupt, await moorline.pending("d1")) == (False, None, None)
    assert (len(done), await booked(bookings)) == (times, times)


async def test_a_graph_may_ask_in_the_same_way(dsn: str) -> None:
    async def node(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        chosen = await runtime.context.tools.ask("Which?", options=("a", "b"))
        return {"messages": [("assistant", f"chosen {chosen} of {len(state['messages'])}")]}

    graph = StateGraph(MessagesState, context_schema=RunContext).add_node("node", node).add_edge(START, "node")
    agents = [GraphAgent(name="form", description="asks", graph=graph.compile())]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(Meaning())) as moorline:
        for said, told in (("B!", "chosen b of 1"), ("2", "chosen b of 3")):
            assert await say(moorline, "hello") == "Which? (a / b)"
            assert await say(moorline, said) == told
        question = await say(moorline, "hello")
        assert await say(moorline, "neither") == "Which? (a / b)"
        with pytest.raises(NothingWaits):
            await resumed(moorline, question, "a")


async def test_a_graph_asks_again_if_words_come_to_nothing(dsn: str) -> None:
    async def node(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        guests = await runtime.context.tools.ask("How many?", schema=Guests)
        return {"messages": [("assistant", f"{guests.count} guests")]}

    graph = StateGraph(MessagesState, context_schema=RunContext).add_node("node", node).add_edge(START, "node")
    agents = [GraphAgent(name="form", description="asks", graph=graph.compile())]
    model = Meaning({"thirteen": plainly({"count": 13}), "four": plainly({"count": 4})})
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(model)) as moorline:
        first = await say(moorline, "hello")
        again = await say(moorline, "thirteen")
        assert first == again == "How many?"
        with pytest.raises(InvalidMessage, match="waits on"):
            await resumed(moorline, again, {"count": 13})
        assert await say(moorline, "four") == "4 guests"


LIKE_OURS: list[dict[str, Any]] = [
    {"question": "x", "options": ["a"], "expires_at": "tomorrow"},
    {"question": "x", "options": ["a"], "expires_at": "2026-01-01T00:00:00"},
    {"question": "x", "options": ["a"], "expires_at": 5},
    {"question": "x", "options": "ab", "expires_at": None},
    {"question": "x", "schema": "s", "expires_at": None},
    {"question": "x", "schema": {"properties": []}, "expires_at": None},
    {"question": "x", "schema": {"properties": {"a": 3}}, "expires_at": None},
    {"question": "x", "schema": {"properties": {"a": {"enum": 3}}}, "expires_at": None},
]


async def test_whatever_a_graph_asks_that_looks_like_a_question_of_the_kit_a_message_closes_it(dsn: str) -> None:
    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("assistant", str(interrupt(LIKE_OURS[int(str(state["messages"][-1].content))])))]}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")
    agents = [GraphAgent(name="form", description="asks", graph=graph.compile())]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(Meaning())) as moorline:
        for number in (*range(len(LIKE_OURS)), 0):  # each of them is the answer to the one before
            assert (await say(moorline, str(number))).interrupt is not None


async def test_another_agent_that_holds_the_session_meanwhile_gets_the_message(dsn: str) -> None:
    done = list[Any]()
    agents = [desk(done), desk(done, "menu", name="other")]

    def rules(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        return calling(request)

    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(rules)) as moorline:
        await say(moorline, "pay")
        await moorline.set_session_lock("d1", "other")
        reply = await say(moorline, "yes")
        assert (reply, reply.agent, done) == ("yes | ", "other", [])


async def test_whoever_answers_a_graphs_own_interrupt_is_known_to_it(dsn: str) -> None:
    async def node(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        said = interrupt("Approve?")
        told = f"{said} by {runtime.context.tools.answered_by} after {len(state['messages'])}"
        return {"messages": [("assistant", told)]}

    graph = StateGraph(MessagesState, context_schema=RunContext).add_node("node", node).add_edge(START, "node")
    agents = [GraphAgent(name="form", description="asks", graph=graph.compile())]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(Meaning())) as moorline:
        assert await resumed(moorline, await say(moorline, "a"), "yes", by="Dr. Weber") == "yes by Dr. Weber after 1"
        assert await resumed(moorline, await say(moorline, "b"), "yes") == "yes by None after 3"
