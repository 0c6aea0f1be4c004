"""A tool stops to ask: what was done before the question is done, and the answer goes on behind it."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated, Any, cast

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel

from moorline import GraphAgent, Moorline, Reply, Resume, Settings, execution
from moorline.errors import AgentError, InvalidContext, InvalidMessage, StaleTurn
from moorline.manager import AgentProtocol
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.messages import Usage
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from moorline_checkpoint.rows import CheckpointRow, ValueRow, WriteRow
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns

from .claims import Connection, claim, expire_lease, message, record
from .runtimes import Stall, execute, runtime, say

Done = list[tuple[str, str]]
CONTEXT = {"device_id": "d1"}


class Nothing(BaseModel):
    pass


def desk(done: Done) -> Agent:
    """`pay` acts; `ask` only asks; `confirm` acts outside and asks first; `book` asks twice and has a row to write."""

    @tool(effect="outside")
    async def pay(_: Nothing, context: ToolContext) -> dict[str, int]:
        """Pays."""
        done.append(("pay", context.idempotency_key))
        return {"paid": len(done)}

    @tool()
    async def ask(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Asks."""
        return {"said": interrupt("sure?")}

    @tool(effect="outside")
    async def confirm(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Asks, then acts."""
        done.append(("asks", context.idempotency_key))
        said = interrupt("really?")
        done.append(("confirmed", context.idempotency_key))
        return {"said": said}

    @tool(effect="database")
    async def book(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Writes a row before its two questions."""
        async with context.transaction() as connection:
            await connection.execute("INSERT INTO bookings VALUES ($1, 'table')", context.device_id)
        return {"said": [interrupt("when?"), interrupt("how many?")]}

    return Agent(name="desk", description="does it", instructions="desk", tools=[pay, ask, confirm, book])


def calls(request: ModelRequest) -> ModelReply:
    """Calls the tools that the person's last message names; then says the results of all calls since."""
    asked = max(n for n, message in enumerate(request.messages) if message["role"] == "user")
    words = (request.messages[asked]["content"] or "").split()
    results = [message["content"] or "" for message in request.messages[asked:] if message["role"] == "tool"]
    if results or words[0] not in request.functions:
        return ModelReply(text=" ".join(results) or f"heard {words[0]}")
    return ModelReply(calls=tuple(Call(name=word) for word in words))


async def answered(moorline: Moorline, reply: Reply, value: Any = "yes") -> Reply:
    assert reply.interrupt is not None
    return await moorline.run(Resume(interrupt_id=reply.interrupt.id, value=value), CONTEXT)


@pytest.fixture
def done() -> Done:
    return []


async def test_what_calls_gave_before_a_question_is_kept_and_the_answer_goes_on_behind_it(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "pay ask pay ask")
        assert (question, [name for name, _ in done]) == ("sure?", ["pay"])
        again = await answered(moorline, question, "one")
        assert (again, [name for name, _ in done]) == ("sure?", ["pay", "pay"])
        assert await answered(moorline, again, "two") == '{"paid": 1} {"said": "one"} {"paid": 2} {"said": "two"}'
    assert len({key for _, key in done}) == len(done) == 2


async def test_a_call_that_asks_keeps_its_idempotency_key_and_no_other_has_it(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "pay confirm pay")
        assert await answered(moorline, question) == '{"paid": 1} {"said": "yes"} {"paid": 5}'
    assert [name for name, _ in done] == ["pay", "asks", "asks", "confirmed", "pay"]
    first, asks, again, confirmed, last = (key for _, key in done)
    assert asks == again == confirmed
    assert len({first, asks, last}) == 3


async def test_a_call_that_asks_again_after_other_questions_keeps_its_key(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "ask pay confirm ask confirm pay")
        while question.interrupt is not None:
            question = await answered(moorline, question)
    assert [name for name, _ in done] == ["pay", "asks", "asks", "confirmed", "asks", "asks", "confirmed", "pay"]
    keys = [key for _, key in done]
    assert keys[1] == keys[2] == keys[3]
    assert keys[4] == keys[5] == keys[6]
    assert len(set(keys)) == 4


async def test_a_database_tool_that_asks_writes_its_rows_once(dsn: str, done: Done) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        when = await say(moorline, "book pay")
        how_many = await answered(moorline, when, "noon")
        assert (when, how_many) == ("when?", "how many?")
        assert await execute(dsn, "SELECT FROM bookings") == []
        assert await answered(moorline, how_many, 2) == '{"said": ["noon", 2]} {"paid": 1}'
    assert len(await execute(dsn, "SELECT FROM bookings")) == 1


async def test_an_answer_in_another_process_goes_on_behind_what_was_done(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "pay ask pay")
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        assert await answered(moorline, question) == '{"paid": 1} {"said": "yes"} {"paid": 2}'


async def test_an_answer_whose_turn_is_cut_off_pays_once(
    dsn: str, connection: Connection, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    async with AsyncExitStack() as stack:
        stall = Stall(lambda request: request.messages[-1]["role"] == "tool")
        dying = await stack.enter_async_context(runtime(dsn, _stalled(stall), agent=desk(done)))
        question = await say(dying, "pay confirm pay")
        cut_off = asyncio.create_task(answered(dying, question))
        await stall.reached.wait()
        await expire_lease(connection)
        async with runtime(dsn, calls, agent=desk(done)) as moorline:
            assert await answered(moorline, question) == '{"paid": 1} {"said": "yes"} {"paid": 5}'
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await cut_off
    assert [name for name, _ in done] == ["pay", "asks", "asks", "confirmed", "pay"]


def _stalled(stall: Stall) -> Callable[[ModelRequest], Any]:
    async def rules(request: ModelRequest) -> ModelReply:
        await stall(request)
        return calls(request)

    return rules


async def test_a_call_that_asked_before_its_process_died_asks_again_and_does_not_count_as_done(
    dsn: str, connection: Connection, done: Done
) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        await say(moorline, "confirm", "m1")
        # As if the process had died after the question and before the commit.
        await connection.execute("DELETE FROM conversation_turns")
        await connection.execute("UPDATE conversation_states SET last_turn_no = 0, heads = '{}'")
        await connection.execute("UPDATE conversation_messages SET status = 'waiting', turn_no = NULL, error = 'died'")
        await connection.execute("DELETE FROM conversation_checkpoints")
        await connection.execute(
            "UPDATE conversation_effects SET position = 1 WHERE kind = 'outside';"
            "INSERT INTO conversation_effects"
            " (device_id, message_id, position, kind, agent, name, intent, turn_no, fence)"
            " SELECT device_id, message_id, 0, 'answer', 'desk', 'desk',"
            """ '{"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function","""
            """ "function": {"name": "confirm", "arguments": "{}"}}]}', 1, 1 FROM conversation_effects"""
        )
        question = await say(moorline, "confirm", "m1")
        assert question == "really?"
        assert await answered(moorline, question) == '{"said": "yes"}'
    assert [name for name, _ in done] == ["asks", "asks", "asks", "confirmed"]
    assert len({key for _, key in done}) == 1


async def test_an_agent_that_ended_its_session_before_a_question_gives_up_the_lock_after_it(
    dsn: str, done: Done
) -> None:
    script = Script(ModelReply(calls=(Call(name="end_session"), Call(name="ask"))), "bye")
    async with runtime(dsn, script, agent=desk(done)) as moorline:
        question = await say(moorline, "done")
        assert await moorline.session("d1") is not None
        assert await answered(moorline, question) == "bye"
        assert await moorline.session("d1") is None


async def test_a_hand_over_before_a_question_is_made_after_it(dsn: str, done: Done) -> None:
    other = Agent(name="other", description="the other", instructions="other")
    script = Script(
        ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),)),
        ModelReply(calls=(Call(name="hand_over", arguments={"agent": "other", "reason": "so"}), Call(name="ask"))),
        "this is other",
    )
    async with Moorline(
        Settings(database_url=dsn), agents=[desk(done), other], client=lambda: rule_client(script)
    ) as moorline:
        reply = await answered(moorline, await say(moorline, "move me"))
        assert (reply, reply.agent, reply.handoffs) == ("this is other", "other", ("other",))
    assert script.requests[-1].said == ("move me",)


class Got(MessagesState):
    got: Annotated[list[Any], operator.add]


def _asks(question: str) -> Any:
    def ask(_: Got) -> dict[str, Any]:
        return {"got": [(question, interrupt(question))]}

    return ask


def _says(state: Got) -> dict[str, Any]:
    return {"messages": [("assistant", str(sorted(map(tuple, state["got"]))))]}


def _in_one_node() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Got).add_node("a", lambda _: {"got": [(q, interrupt(q)) for q in ("1?", "2?", "3?")]})
    return graph.add_node("says", _says).add_edge(START, "a").add_edge("a", "says")


def _in_two_nodes() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Got).add_node("a", _asks("1?")).add_node("b", _asks("2?")).add_node("says", _says)
    return graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "says")


def _in_parallel() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(Got).add_node("a", _asks("1?")).add_node("b", _asks("2?")).add_node("says", _says)
    return graph.add_edge(START, "a").add_edge(START, "b").add_edge(["a", "b"], "says")


def _in_sent_tasks() -> StateGraph[Any, Any, Any, Any]:
    def one(state: Any) -> dict[str, Any]:
        return {"got": [(q, interrupt(q)) for q in (f"{state['n']}?", f"{state['n']}!?")]}

    graph = StateGraph(Got).add_node("one", one).add_node("says", _says).add_edge("one", "says")
    return graph.add_conditional_edges(START, lambda _: [Send("one", {"n": str(n)}) for n in range(3)], ["one"])


def _in_a_subgraph() -> StateGraph[Any, Any, Any, Any]:
    inner = StateGraph(Got).add_node("a", _asks("1?")).add_node("b", _asks("2?"))
    inner.add_edge(START, "a").add_edge("a", "b")
    graph = StateGraph(Got).add_node("inner", inner.compile()).add_node("c", _asks("3?")).add_node("says", _says)
    return graph.add_edge(START, "inner").add_edge(START, "c").add_edge(["inner", "c"], "says")


@pytest.mark.parametrize("make", [_in_one_node, _in_two_nodes, _in_parallel, _in_sent_tasks, _in_a_subgraph])
async def test_a_graph_may_ask_any_number_of_times_and_each_answer_reaches_its_question(
    dsn: str, make: Callable[[], StateGraph[Any, Any, Any, Any]]
) -> None:
    graph = GraphAgent(name="form", description="asks", graph=make().compile())
    said = {}
    async with Moorline(Settings(database_url=dsn), agents=[graph]) as moorline:
        reply = await moorline.run("hello", CONTEXT)
        ids = []
        while reply.interrupt is not None:
            said[str(reply)] = f"answer to {reply}"
            ids.append(reply.interrupt.id)
            reply = await answered(moorline, reply, said[str(reply)])
        assert reply == str(sorted(said.items()))
        assert len(set(ids)) == len(ids) == len(said)


async def test_a_question_waits_until_it_is_answered_or_closed(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        assert await moorline.pending("d1") is None
        question = await say(moorline, "ask")
        assert await moorline.pending("d1") == question.interrupt
        await answered(moorline, question)
        assert await moorline.pending("d1") is None
        await say(moorline, "ask")
        await say(moorline, "hello")
        assert await moorline.pending("d1") is None
        assert not await moorline.cancel("d1")


async def test_a_cancelled_question_takes_no_answer_and_leaves_no_row_of_it(
    dsn: str, connection: Connection, done: Done
) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "pay ask pay")
        assert await moorline.cancel("d1")
        assert await moorline.pending("d1") is None
        assert not await moorline.cancel("d1")
        with pytest.raises(InvalidMessage, match="is waiting for an answer"):
            await answered(moorline, question)
        assert await connection.fetchval("SELECT count(*) FROM conversation_messages WHERE resume IS NOT NULL") == 0
        assert await say(moorline, "hello") == "heard hello"
    assert [name for name, _ in done] == ["pay"]


async def test_a_question_that_is_being_answered_cannot_be_cancelled(dsn: str, done: Done) -> None:
    stall = Stall(lambda request: request.messages[-1]["role"] == "tool")
    async with runtime(dsn, _stalled(stall), agent=desk(done)) as moorline:
        question = await say(moorline, "ask")
        answering = asyncio.create_task(answered(moorline, question))
        await stall.reached.wait()
        assert not await moorline.cancel("d1")
        stall.go_on.set()
        assert await answering == '{"said": "yes"}'


async def test_a_message_that_came_before_the_question_does_not_answer_it(dsn: str, done: Done) -> None:
    stall = Stall()
    async with runtime(dsn, _stalled(stall), agent=desk(done)) as moorline:
        asking = asyncio.create_task(say(moorline, "ask pay", "m1"))
        await stall.reached.wait()
        early = asyncio.create_task(say(moorline, "yes", "m2"))
        stall.go_on.set()
        question = await asking
        assert (question, await early) == ("sure?", "heard yes")
        with pytest.raises(InvalidMessage, match="is waiting for an answer"):
            await answered(moorline, question)
    assert done == []


async def test_a_second_answer_is_told_that_the_first_stands(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "ask")
        first = await answered(moorline, question, "yes")
        second = await answered(moorline, question, "no")
        assert (second, first.replayed, second.replayed) == (first, False, True)


async def test_no_message_from_outside_takes_the_place_of_an_answer(dsn: str, done: Done) -> None:
    async with runtime(dsn, calls, agent=desk(done)) as moorline:
        question = await say(moorline, "ask")
        assert question.interrupt is not None
        with pytest.raises(InvalidContext, match="must not begin with"):
            await say(moorline, "ha", f"resume:{question.interrupt.id}")
        assert await answered(moorline, question) == '{"said": "yes"}'
        # The ID that an error of it would name.
        again = Resume(interrupt_id=question.interrupt.id, value="yes")
        reply = await moorline.run(again, {**CONTEXT, "message_id": f"resume:{question.interrupt.id}"})
        assert reply.replayed


class Paid(MessagesState):
    receipts: Annotated[list[str], operator.add]


def paying(shown: list[list[str]], asks: Callable[[str], Any]) -> GraphAgent:
    """A graph whose model calls `pay` and `ask` at once, each in a task of its own, at a message `buy`."""

    def model(state: Paid) -> dict[str, Any]:
        shown.append([f"{message.type} {message.text}" for message in state["messages"]])
        if str(state["messages"][-1].text) != "buy":
            return {"messages": [AIMessage(f"receipts {state['receipts']}")]}
        calls: list[Any] = [{"name": name, "args": {}, "id": name} for name in ("pay", "ask")]
        return {"messages": [AIMessage("", tool_calls=calls)]}

    def act(call: Any) -> dict[str, Any]:
        result = "paid" if call["name"] == "pay" else asks("sure?")
        receipts = ["paid"] if call["name"] == "pay" else []
        return {"messages": [ToolMessage(result, tool_call_id=call["id"])], "receipts": receipts}

    def to_act(state: Paid) -> Any:
        calls = getattr(state["messages"][-1], "tool_calls", None)
        return [Send("act", call) for call in calls] if calls else END

    graph = StateGraph(Paid).add_node("model", model).add_node("act", cast("Any", act)).add_edge(START, "model")
    graph.add_conditional_edges("model", to_act, ["act", END]).add_edge("act", "model")
    return GraphAgent(name="shop", description="sells", graph=graph.compile())


CLOSED = '{"error": "not done; the person said something else instead of answering", "code": "not_answered"}'


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_graph_whose_question_is_not_answered_keeps_what_has_finished_and_has_no_call_open(
    dsn: str, cancelled: bool
) -> None:
    shown: list[list[str]] = []
    async with Moorline(Settings(database_url=dsn), agents=[paying(shown, interrupt)]) as moorline:
        question = await moorline.run("buy", CONTEXT)
        if cancelled:
            await moorline.cancel("d1")
        assert await moorline.run("well", CONTEXT) == "receipts ['paid']"
        assert await moorline.run("again", CONTEXT) == "receipts ['paid']"
        with pytest.raises(InvalidMessage, match="is waiting for an answer"):
            await answered(moorline, question)
    assert shown[1] == ["human buy", "ai ", "tool paid", f"tool {CLOSED}", "human well"]
    assert shown[2][:5] == shown[1]


async def test_a_graph_that_asked_is_closed_also_if_another_agent_is_spoken_to(dsn: str) -> None:
    shown: list[list[str]] = []
    kit = Agent(name="kit", description="k", instructions="k")
    agents: list[AgentProtocol] = [paying(shown, interrupt), kit]

    def route(request: ModelRequest) -> ModelReply:
        if "route" not in request.functions:
            return ModelReply(text="this is kit")
        said = request.messages[-1]["content"] or ""
        return ModelReply(calls=(Call(name="route", arguments={"agent": "kit" if "kit" in said else "shop"}),))

    async with (
        Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(route)) as moorline,
        DeviceCheckpointer.from_conn_string(dsn) as saver,
    ):
        await moorline.run("buy", CONTEXT)
        await saver.clear_session_lock("d1")
        assert await moorline.run("kit, please", CONTEXT) == "this is kit"
        await saver.clear_session_lock("d1")
        assert await moorline.run("shop, please", CONTEXT) == "receipts ['paid']"
    assert shown[-1] == ["human buy", "ai ", "tool paid", f"tool {CLOSED}", "human shop, please"]


async def test_a_graph_that_asked_in_another_process_is_closed(dsn: str) -> None:
    shown: list[list[str]] = []
    async with Moorline(Settings(database_url=dsn), agents=[paying(shown, interrupt)]) as moorline:
        await moorline.run("buy", CONTEXT)
    async with Moorline(Settings(database_url=dsn), agents=[paying(shown, interrupt)]) as moorline:
        assert await moorline.run("well", CONTEXT) == "receipts ['paid']"
    assert shown[-1] == ["human buy", "ai ", "tool paid", f"tool {CLOSED}", "human well"]


async def test_a_graph_goes_on_with_an_answer_as_before(dsn: str) -> None:
    shown: list[list[str]] = []
    async with Moorline(Settings(database_url=dsn), agents=[paying(shown, interrupt)]) as moorline:
        assert await answered(moorline, await moorline.run("buy", CONTEXT)) == "receipts ['paid']"
    assert shown[-1] == ["human buy", "ai ", "tool paid", "tool yes"]


class Offer(BaseModel):
    text: str
    price: float = 1.0


@pytest.mark.parametrize(
    ("value", "stored", "reply"),
    [
        ("sure?", "sure?", "sure?"),
        ({"message": "Sure?", "options": ["yes"]}, {"message": "Sure?", "options": ["yes"]}, "Sure?"),
        ({"question": "Sure?"}, {"question": "Sure?"}, "Sure?"),
        ({"pay": 42, "to": {"name": "Ana"}, "now": True}, {"pay": 42, "to": {"name": "Ana"}, "now": True},
         "pay: 42\nto: name: Ana\nnow: yes"),
        (Offer(text="cut"), {"text": "cut", "price": 1.0}, "text: cut\nprice: 1.0"),
        (["a", 1], ["a", 1], "a\n1"),
        (42, 42, "42"),
        ("half \ud83d", "half \ufffd", "half \ufffd"),
        ("", "", ""),
        (None, None, ""),
        ([], [], ""),
    ],
)  # fmt: skip
async def test_a_question_is_json_and_its_reply_is_for_a_person(dsn: str, value: Any, stored: Any, reply: str) -> None:
    graph = StateGraph(MessagesState).add_node(
        "ask", lambda _: {"messages": [("assistant", f"got {interrupt(value)}")]}
    )
    agent = GraphAgent(name="form", description="asks", graph=graph.add_edge(START, "ask").compile())
    async with Moorline(Settings(database_url=dsn), agents=[agent]) as moorline:
        question = await moorline.run("hello", CONTEXT)
        assert question.interrupt is not None
        assert (question, question.interrupt.value) == (reply, stored)
        assert await moorline.pending("d1") == question.interrupt
        assert await answered(moorline, question, {"well": ["yes"]}) == "got {'well': ['yes']}"
        assert (await moorline.transcript("d1"))[-1].texts == ('{"well": ["yes"]}',)


async def test_a_question_that_is_no_json_is_refused_and_not_stored(dsn: str, connection: Connection) -> None:
    graph = StateGraph(MessagesState).add_node("ask", lambda _: {"messages": [interrupt({"price": float("nan")})]})
    agent = GraphAgent(name="form", description="asks", graph=graph.add_edge(START, "ask").compile())
    async with Moorline(Settings(database_url=dsn), agents=[agent]) as moorline:
        with pytest.raises(AgentError, match="a number that JSON does not know"):
            await moorline.run("hello", CONTEXT)
        assert await moorline.pending("d1") is None
    assert await connection.fetchval("SELECT count(*) FROM conversation_turns") == 0


@pytest.mark.parametrize("effect", ["none", "database", "outside"])
async def test_whatever_a_tool_returns_it_has_run_once_and_the_turn_goes_on(dsn: str, effect: Any) -> None:
    ran = []

    @tool(effect=effect)
    async def odd(_: Nothing, context: ToolContext) -> Any:
        """Returns odd things."""
        ran.append(1)
        return {"nan": float("nan"), "half": "\ud83d", "offer": Offer(text="cut"), "long": list(range(9))}

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[odd])
    async with runtime(dsn, calls, agent=agent) as moorline:
        assert await say(moorline, "odd") == (
            '{"nan": null, "half": "\ufffd", "offer": {"text": "cut", "price": 1.0}, '
            '"long": [0, 1, 2, 3, 4, 5, 6, 7, 8]}'
        )
    assert ran == [1]


async def test_usage_counts_the_routing_the_question_and_attempts_that_failed(dsn: str, done: Done) -> None:
    fails = True

    def priced(request: ModelRequest) -> ModelReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),), usage=Usage(1000, 100))
        if fails and request.messages[-1]["role"] == "tool":
            raise LookupError
        return replace(calls(request), usage=Usage(10, 1))

    other = Agent(name="other", description="the other", instructions="other")
    settings = Settings(database_url=dsn, openai_model="small", model_retries=0)
    async with Moorline(settings, agents=[desk(done), other], client=lambda: rule_client(priced)) as moorline:
        question = await say(moorline, "pay ask")
        assert question.usage == {"prompt_tokens": 1010, "completion_tokens": 101}
        assert question.usage.by_agent == {"desk": Usage(10, 1), "route": Usage(1000, 100)}
        with pytest.raises(AgentError):
            await say(moorline, "pay", "m2")
        fails = False
        paid = await say(moorline, "pay", "m2")
        # The answer that the first attempt got is given to the second one, and counted once.
        assert paid.usage.by_model["small"].by_agent == {"desk": Usage(20, 2)}
        again = await say(moorline, "pay", "m2")
        assert (again.replayed, again.usage, again.usage.by_agent) == (True, paid.usage, paid.usage.by_agent)
        total = sum((Usage(**entry.record.usage) for entry in await moorline.transcript("d1")), Usage())
        assert total == question.usage + paid.usage == {"prompt_tokens": 1030, "completion_tokens": 103}


async def test_a_turn_may_write_what_the_one_before_that_asked_has_left(turns: Turns, connection: Connection) -> None:
    for number, metadata in enumerate(("{}", '{"step": 1}'), 1):
        turn = await claim(turns, message(f"m{number}"))
        turn.put(
            CheckpointRow("", "c", None, "bytes", b"%d" % number, metadata, "{}"),
            [ValueRow("", "texts", "1", "bytes", b"text")],
        )
        turn.put_writes([WriteRow("", "c", "task", -3, "", "__interrupt__", "bytes", b"%d" % number)], replace=True)
        await turns.commit(turn, record(turn, interrupt={"id": f"i{number}", "value": None}))
    found = await connection.fetchrow("SELECT checkpoint, metadata, turn_no FROM conversation_checkpoints")
    assert found is not None
    assert tuple(found) == (b"2", '{"step": 1}', 2)
    assert await connection.fetchval("SELECT blob FROM conversation_writes") == b"2"
