"""A turn that the person stops ends soon, in whatever process it runs, and leaves a conversation that can go on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool as langchain_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from moorline import (
    Agent,
    Event,
    GraphAgent,
    ModelFinished,
    Moorline,
    Resume,
    Settings,
    TextDelta,
    Texts,
    ToolContext,
    ToolStarted,
    TurnFinished,
    tool,
)
from moorline_agents.messages import Message, ModelAnswer, ToolCall
from moorline_agents.transport import rule_client

from .runtimes import Stall, World, crashed, in_queue, runtime, say

STOPPED = Texts(stopped="I have stopped.")


class Thing(BaseModel):
    what: str


class Waits:
    """A model that says something and then waits, when it is told to; it keeps what it was shown."""

    name = "waits"

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.calls: list[tuple[str, str]] = []
        """What the next answer calls: names, and arguments as JSON."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        on_text: Callable[[str], None] | None,
        **_: Any,
    ) -> ModelAnswer:
        self.shown.append(messages)
        if calls := self.calls:
            self.calls = []
            made: list[ToolCall] = [
                {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, (name, arguments) in enumerate(calls)
            ]
            return ModelAnswer({"role": "assistant", "content": None, "tool_calls": made})
        if messages[-1]["content"] == "at once":
            return ModelAnswer({"role": "assistant", "content": "Here you are."})
        if on_text is not None:
            on_text("Well, ")
            on_text("let me ")
        self.asked.set()
        await self.go_on.wait()
        return ModelAnswer({"role": "assistant", "content": "Well, let me see."})


class Lasting:
    """A tool that runs until it may end."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def tool(self) -> Any:
        @tool(effect="outside")
        async def lasts(thing: Thing, context: ToolContext) -> str:
            """Takes its time."""
            self.begun.set()
            await self.go_on.wait()
            assert not self.done.is_set()
            self.done.set()
            return f"{thing.what} done"

        return lasts


@pytest.fixture
async def bookings(connection: "asyncpg.Connection[asyncpg.Record]") -> "asyncpg.Connection[asyncpg.Record]":
    await connection.execute("CREATE TABLE bookings (device_id text, thing text)")
    return connection


@pytest.fixture
def model() -> Waits:
    return Waits()


@pytest.fixture
def lasting() -> Lasting:
    return Lasting()


def opened(dsn: str, model: Any, *agents: Any, tools: Sequence[Any] = (), **others: Any) -> Moorline:
    desk = Agent(name="desk", description="a desk", instructions="desk", model=model, tools=tools)
    return Moorline(Settings(database_url=dsn), agents=agents or [desk], texts=STOPPED, **others)


async def streamed(moorline: Moorline, text: Any, message_id: str, until: type[Any]) -> tuple[list[Event], Any]:
    """The events until the first of a type, and the rest of the stream."""
    stream = moorline.stream(text, {"device_id": "d1", "message_id": message_id})
    events: list[Event] = []
    async for event in stream:
        events.append(event)
        if isinstance(event, until):
            break
    return events, stream


async def rest(stream: AsyncIterator[Event]) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for event in stream]


def roles(messages: Sequence[Message]) -> list[tuple[str, str | None]]:
    return [(message["role"], message["content"]) for message in messages[1:]]


async def test_what_was_told_until_then_is_the_reply_and_is_remembered(dsn: str, model: Waits) -> None:
    async with opened(dsn, model) as moorline:
        _, stream = await streamed(moorline, "hello", "m1", TextDelta)
        await model.asked.wait()
        assert await moorline.stop("d1", "m1")
        events = await rest(stream)
        last = events[-1]
        assert isinstance(last, TurnFinished)
        assert last.reply == "Well, let me "
        assert [event.failed for event in events if isinstance(event, ModelFinished)] == ["Stopped"]
        session = await moorline.session("d1")
        assert session is not None
        assert session.active_agent == "desk"
        assert await say(moorline, "hello", "m1") == "Well, let me "
        assert await say(moorline, "at once", "m2") == "Here you are."
    assert roles(model.shown[-1]) == [("user", "hello"), ("assistant", "Well, let me "), ("user", "at once")]
    assert len(model.shown) == 2


async def test_without_a_listener_the_reply_says_that_it_was_stopped(dsn: str, model: Waits) -> None:
    async with opened(dsn, model) as moorline:
        turn = asyncio.create_task(say(moorline, "hello", "m1"))
        await model.asked.wait()
        assert await moorline.stop("d1", "m1")
        await moorline.stop("d1", "m1")
        assert await turn == "I have stopped."
        assert await say(moorline, "at once", "m2") == "Here you are."
    assert roles(model.shown[-1])[1] == ("assistant", "I have stopped.")


async def test_a_running_tool_is_finished_and_no_other_is_called(dsn: str, model: Waits, lasting: Lasting) -> None:
    model.calls = [("lasts", '{"what": "one"}'), ("lasts", '{"what": "two"}'), ("hand_over", '{"agent": "desk"}')]
    async with opened(dsn, model, tools=[lasting.tool()]) as moorline:
        events, stream = await streamed(moorline, "hello", "m1", ToolStarted)
        await lasting.begun.wait()
        assert await moorline.stop("d1", "m1")
        await asyncio.sleep(0.05)
        assert not lasting.done.is_set()
        lasting.go_on.set()
        events += await rest(stream)
        assert events[-1].reply == "I have stopped."  # type: ignore[union-attr]
        assert sum(isinstance(event, ToolStarted) for event in events) == 1
        assert lasting.done.is_set()
        await say(moorline, "at once", "m2")
    asked, calling, one, two, over, said, _ = model.shown[-1][1:]
    assert (asked["role"], [call["id"] for call in calling["tool_calls"]]) == ("user", ["c0", "c1", "c2"])
    assert one["content"] == '"one done"'
    assert all('"code": "stopped"' in str(message["content"]) for message in (two, over))
    assert said == {"role": "assistant", "content": "I have stopped."}
    assert len(model.shown) == 2


async def test_another_process_notices_within_about_a_second(dsn: str, model: Waits) -> None:
    async with opened(dsn, model) as moorline, opened(dsn, Waits()) as other:
        for number in range(3):
            turn = asyncio.create_task(say(moorline, "hello", f"m{number}"))
            await model.asked.wait()
            model.asked.clear()
            assert await other.stop("d1", f"m{number}")
            async with asyncio.timeout(2.5):
                assert await turn == "I have stopped."


async def test_a_message_that_waits_is_answered_without_a_model_when_its_turn_comes(dsn: str, model: Waits) -> None:
    async with opened(dsn, model) as moorline:
        first = asyncio.create_task(say(moorline, "hello", "m1"))
        await model.asked.wait()
        second = asyncio.create_task(say(moorline, "hello again", "m2"))
        await in_queue(dsn, 1)
        assert await moorline.stop("d1", "m2")
        await asyncio.sleep(0.1)
        assert not second.done()
        model.go_on.set()
        assert await first == "Well, let me see."
        assert await second == "I have stopped."
        assert len(model.shown) == 1
        assert await say(moorline, "at once", "m3") == "Here you are."


async def test_a_stop_that_nothing_waits_for_harms_nothing(dsn: str, model: Waits) -> None:
    async with opened(dsn, model) as moorline:
        assert not await moorline.stop("d1", "m1")
        assert await say(moorline, "at once", "m1") == "Here you are."
        turn = asyncio.create_task(say(moorline, "hello", "m2"))
        await model.asked.wait()
        for device, message in (("d1", "m1"), ("d2", "m2"), ("d1", "m3"), ("d3", "m2")):
            assert not await moorline.stop(device, message)
        await asyncio.sleep(0.1)
        model.go_on.set()
        assert await turn == "Well, let me see."
        assert not await moorline.stop("d1", "m2")
        assert await say(moorline, "at once", "m4") == "Here you are."


async def test_the_routers_model_is_given_up_too(dsn: str) -> None:
    agents = [Agent(name=name, description=name, instructions=name) for name in ("hair", "nails")]
    stall = Stall()
    async with opened(dsn, None, *agents, client=lambda: rule_client(stall)) as moorline:
        turn = asyncio.create_task(say(moorline, "hello", "m1"))
        await stall.reached.wait()
        assert await moorline.stop("d1", "m1")
        reply = await turn
        assert (reply, reply.agent) == ("I have stopped.", None)
        assert await moorline.session("d1") is None


async def test_a_turn_that_was_stopped_and_crashed_stays_stopped(
    dsn: str, bookings: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    world = World()
    shown: list[Any] = []

    def watching(request: Any) -> Any:
        shown.append(request)
        raise AssertionError

    async with AsyncExitStack() as stack:
        await crashed(stack, dsn, bookings, "book haircut", "m1", world=world)
        async with runtime(dsn, watching, world=world) as moorline:
            assert await moorline.stop("d1", "m1")
            reply = await say(moorline, "book haircut", "m1")
            assert reply == "Stopped."
            assert await bookings.fetchval("SELECT count(*) FROM bookings") == 1
        assert not shown
        async with runtime(dsn, world=world) as moorline:
            assert await say(moorline, "hello", "m2") == "2: hello"


async def test_the_journal_of_a_stopped_turn_is_told_to_the_agent(
    dsn: str, bookings: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """What was done before the crash is in its history, with the calls that were not made any more."""
    world = World()
    async with AsyncExitStack() as stack:
        await crashed(stack, dsn, bookings, "book haircut shave", "m1", world=world)
        await bookings.execute("DELETE FROM conversation_effects WHERE position = 2")
        async with runtime(dsn, world=world) as moorline:
            assert await moorline.stop("d1", "m1")
            await say(moorline, "book haircut shave", "m1")
            model = Waits()
        async with Moorline(
            Settings(database_url=dsn),
            agents=[Agent(name="desk", description="d", instructions="d", tools=world.tools(), model=model)],
        ) as moorline:
            await say(moorline, "at once", "m2")
    results = [str(message["content"]) for message in model.shown[-1] if message["role"] == "tool"]
    assert [("booked" in result, "stopped" in result) for result in results] == [(True, False), (False, True)]


class GraphModel(BaseChatModel):
    """A chat model of LangChain's that calls a tool, if it has one, and then waits."""

    model: Any

    @property
    def _llm_type(self) -> str:
        return "waits"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:  # noqa: ARG002
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        parts = [part.message async for part in self._astream(messages)]
        answer = parts[0]
        for part in parts[1:]:
            answer += part
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        self.model.shown.append(messages)
        if calls := self.model.calls:
            self.model.calls = []
            chunks: list[Any] = [
                {"name": name, "args": arguments, "id": f"c{place}", "index": place, "type": "tool_call_chunk"}
                for place, (name, arguments) in enumerate(calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=chunks))
        elif messages[-1].text == "at once":
            yield ChatGenerationChunk(message=AIMessageChunk(content="Here you are."))
        else:
            yield ChatGenerationChunk(message=AIMessageChunk(content="Well, "))
            self.model.asked.set()
            await self.model.go_on.wait()


def graph_agent(model: Waits, *tools: Any) -> GraphAgent:
    asks = GraphModel(model=model)

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await asks.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "think").add_conditional_edges("think", tools_condition, ["tools", END])
    return GraphAgent(name="front", description="front", graph=graph.add_edge("tools", "think").compile())


def graph_roles(messages: Sequence[BaseMessage]) -> list[tuple[str, str]]:
    return [(message.type, str(message.text)) for message in messages]


async def test_a_graphs_model_is_given_up(dsn: str, model: Waits) -> None:
    async with opened(dsn, None, graph_agent(model)) as moorline:
        _, stream = await streamed(moorline, "hello", "m1", TextDelta)
        await model.asked.wait()
        assert await moorline.stop("d1", "m1")
        last = (await rest(stream))[-1]
        assert isinstance(last, TurnFinished)
        assert (last.reply, last.reply.agent) == ("Well, ", "front")
        assert await say(moorline, "at once", "m2") == "Here you are."
    assert graph_roles(model.shown[-1]) == [("human", "hello"), ("ai", "Well, "), ("human", "at once")]


async def test_a_graphs_tool_is_finished_and_its_next_step_does_not_begin(dsn: str, model: Waits) -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    @langchain_tool
    async def lasts(what: str) -> str:
        """Takes its time."""
        begun.set()
        await go_on.wait()
        done.append(what)
        return f"{what} done"

    model.calls = [("lasts", '{"what": "one"}')]
    async with opened(dsn, None, graph_agent(model, lasts)) as moorline:
        turn = asyncio.create_task(say(moorline, "hello", "m1"))
        await begun.wait()
        assert await moorline.stop("d1", "m1")
        await asyncio.sleep(0.05)
        assert not done
        go_on.set()
        assert await turn == "I have stopped."
        assert done == ["one"]
        assert len(model.shown) == 1
        assert await say(moorline, "at once", "m2") == "Here you are."
    assert graph_roles(model.shown[-1]) == [
        *(("human", "hello"), ("ai", ""), ("tool", "one done"), ("ai", "I have stopped."), ("human", "at once"))
    ]


async def test_calls_that_a_graph_did_not_make_are_closed(dsn: str, model: Waits) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def think(state: MessagesState) -> dict[str, Any]:
        model.shown.append(state["messages"])
        if state["messages"][-1].text == "at once":
            return {"messages": [AIMessage("Here you are.")]}
        return {"messages": [AIMessage("", tool_calls=[{"name": "act", "args": {}, "id": "c0"}])]}

    async def ponder(state: MessagesState) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return {}

    async def act(state: MessagesState) -> dict[str, Any]:
        raise AssertionError

    graph = StateGraph(MessagesState).add_node("think", think).add_node("ponder", ponder).add_node("act", act)
    graph.add_edge(START, "think").add_edge("ponder", "act").add_edge("act", "think")
    graph.add_conditional_edges("think", lambda state: "ponder" if state["messages"][-1].tool_calls else END)
    agent = GraphAgent(name="front", description="front", graph=graph.compile())
    async with opened(dsn, None, agent) as moorline:
        turn = asyncio.create_task(say(moorline, "hello", "m1"))
        await begun.wait()
        assert await moorline.stop("d1", "m1")
        go_on.set()
        assert await turn == "I have stopped."
        assert await say(moorline, "at once", "m2") == "Here you are."
    asked, calling, closed, said, _ = model.shown[-1]
    assert (asked.text, calling.tool_calls[0]["id"], closed.tool_call_id) == ("hello", "c0", "c0")
    assert '"code": "stopped"' in closed.text
    assert said.text == "I have stopped."


async def test_an_answer_to_a_question_can_be_stopped(dsn: str, model: Waits) -> None:
    @tool()
    async def ask(thing: Thing, context: ToolContext) -> Any:
        """Asks."""
        from langgraph.types import interrupt

        return interrupt(f"which {thing.what}?")

    model.calls = [("ask", '{"what": "one"}')]
    async with opened(dsn, model, tools=[ask]) as moorline:
        question = (await say(moorline, "hello", "m1")).interrupt
        assert question is not None
        answer = Resume(interrupt_id=question.id, value="this")
        turn = asyncio.create_task(moorline.run(answer, {"device_id": "d1", "message_id": "m2"}))
        await model.asked.wait()
        assert await moorline.stop("d1", "m2")
        assert await turn == "I have stopped."
        assert await say(moorline, "at once", "m3") == "Here you are."
    assert [message["role"] for message in model.shown[-1]] == [
        *("system", "user", "assistant", "tool", "assistant", "user")
    ]
