"""Any LangGraph graph as an agent: what it writes is shown, what it costs is counted, and it may ask and hand over."""

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, tools_condition
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt
from pydantic import Field

from moorline import GraphAgent, Moorline, Reply, Resume, TextDelta, TextWithdrawn, TurnFinished, handover_tools
from moorline.errors import AgentError, InvalidMessage
from moorline_agents.run import RunContext

from .conftest import Open, agent

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Telling(BaseChatModel):
    """A chat model of LangChain's that gives one answer after another, in pieces where it can."""

    answers: list[AIMessage]
    shown: list[list[BaseMessage]] = Field(default_factory=list)
    offered: list[dict[str, Any]] = Field(default_factory=list)
    """The tools that it was offered last."""

    @property
    def _llm_type(self) -> str:
        return "telling"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        self.offered[:] = [convert_to_openai_tool(each) for each in tools]
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        *_: Any,
        **__: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        *_: Any,
        **__: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._next(messages)
        for word in str(answer.text).split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
        last = AIMessageChunk(content="", usage_metadata=answer.usage_metadata)
        last.response_metadata = answer.response_metadata
        last.tool_call_chunks = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=place)
            for place, call in enumerate(answer.tool_calls)
        ]
        yield ChatGenerationChunk(message=last)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.shown.append(messages)
        return self.answers.pop(0)


def says(text: str = "", *, spent: tuple[int, int] = (0, 0), **calls: dict[str, Any]) -> AIMessage:
    return AIMessage(
        text,
        tool_calls=[{"name": name.rstrip("_"), "args": args, "id": f"call {name}"} for name, args in calls.items()],
        usage_metadata=UsageMetadata(input_tokens=spent[0], output_tokens=spent[1], total_tokens=sum(spent)),
        response_metadata={"model_name": "telling"},
    )


@tool
def look(what: str, runtime: ToolRuntime) -> str:
    """Looks."""
    return f"{what} is red"


def with_tools(model: Telling, *tools: BaseTool) -> Graph:
    """The usual loop of a model and its tools."""

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.bind_tools(tools).ainvoke(state["messages"])]}

    def go_on(state: MessagesState) -> str:
        last = state["messages"][-1]
        each = [each.return_direct for each in tools if isinstance(last, ToolMessage) and each.name == last.name]
        return END if any(each) else "think"

    graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "think").add_conditional_edges("think", tools_condition)
    return graph.add_conditional_edges("tools", go_on, ["think", END]).compile()


def answering(node: Callable[..., Any], state: Any = MessagesState, **options: Any) -> Graph:
    """A graph of one node."""
    return StateGraph(state, **options).add_node("answer", node).add_edge(START, "answer").compile()


def front(graph: Graph) -> GraphAgent:
    return GraphAgent(name="front", description="for messages that begin with front", graph=graph)


async def say(moorline: Moorline, text: str) -> Reply:
    return await moorline.run(text, {"device_id": "d1"})


async def told(moorline: Moorline, text: str) -> tuple[list[str], Reply]:
    """The pieces of text that were shown, `-` where the text so far was withdrawn, and the reply."""
    shown: list[str] = []
    async for event in moorline.stream(text, {"device_id": "d1"}):
        match event:
            case TextDelta():
                shown.append(event.text)
            case TextWithdrawn():
                shown.append("-")
            case TurnFinished():
                return shown, event.reply
    raise AssertionError(shown)


async def test_text_is_shown_while_the_graphs_models_write_it(open_moorline: Open) -> None:
    model = Telling(answers=[says("Let me look.", look={"what": "it"}), says("It is red.")])
    async with open_moorline(agents=[front(with_tools(model, look))]) as moorline:
        shown, reply = await told(moorline, "front")
    assert shown == ["Let ", "me ", "look. ", "-", "It ", "is ", "red. "]
    assert reply == "It is red. "


async def test_of_models_that_write_beside_each_other_one_is_shown(open_moorline: Open) -> None:
    class State(MessagesState):
        said: Annotated[list[str], operator.add]

    def part(name: str) -> Any:
        model = Telling(answers=[says(f"{name} one two three")])

        async def write(state: State) -> dict[str, Any]:
            return {"said": [str((await model.ainvoke("x")).text)]}

        return write

    graph = StateGraph(State)
    for name in ("left", "right"):
        graph.add_node(name, part(name)).add_edge(START, name)
    graph.add_node("end", lambda state: {"messages": [AIMessage(" / ".join(state["said"]))]}, defer=True)
    graph.add_edge(["left", "right"], "end")
    async with open_moorline(agents=[front(graph.compile())]) as moorline:
        shown, reply = await told(moorline, "front")
    assert "".join(shown[:4]) in ("left one two three ", "right one two three ")
    assert shown[4:] == ["-", str(reply)]
    assert reply == "left one two three  / right one two three "


async def test_a_subgraphs_models_are_shown_as_well(open_moorline: Open) -> None:
    inner = with_tools(Telling(answers=[says("from inside")]), look)
    graph = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
    async with open_moorline(agents=[front(graph)]) as moorline:
        assert await told(moorline, "front") == (["from ", "inside "], "from inside ")


async def test_a_model_that_does_not_say_what_it_costs_is_named_once(
    open_moorline: Open, caplog: pytest.LogCaptureFixture
) -> None:
    class Named(Telling):
        model_name: str

    counted = Named(answers=[says("zero")], model_name="counted")
    async with open_moorline(agents=[front(with_tools(counted))]) as moorline:
        assert (await told(moorline, "front"))[1] == "zero "
    assert "does not say what" not in caplog.text
    silent = Named(answers=[AIMessage(text) for text in ("one", "two", "three")], model_name="gpt-of-ours")
    async with open_moorline(agents=[front(with_tools(silent))]) as moorline:
        assert await say(moorline, "front") == "one"
        assert "gpt-of-ours" not in caplog.text, "it was not streamed"
        for text in ("two ", "three "):
            assert (await told(moorline, "front"))[1] == text
    assert caplog.text.count("Model gpt-of-ours does not say what an answer costs that it streams") == 1


async def test_what_the_graphs_models_cost_is_counted_once(open_moorline: Open) -> None:
    model = Telling(answers=[says(spent=(10, 1), look={"what": "it"}), says("It is red.", spent=(20, 2))])

    async def by_hand(state: MessagesState) -> dict[str, Any]:
        heard = await Telling(answers=[says("heard", spent=(100, 10))]).ainvoke("x")
        copied = AIMessage(heard.content, usage_metadata=heard.usage_metadata)
        return {"messages": [copied, says("made without LangChain", spent=(100, 10))]}

    async with open_moorline(agents=[front(with_tools(model, look))]) as moorline:
        reply = await say(moorline, "front")
        assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (30, 3)
        assert [*reply.usage.by_model, *reply.usage.by_agent] == ["telling", "front"]
    async with open_moorline(agents=[front(answering(by_hand))]) as moorline:
        for text in ("front", "again"):
            usage = (await say(moorline, text)).usage
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (200, 20)


async def test_a_question_says_what_was_spent_until_then(open_moorline: Open) -> None:
    model = Telling(answers=[says("well", spent=(10, 1))])

    async def ask(state: MessagesState) -> dict[str, Any]:
        await model.ainvoke("x")
        return {"messages": [AIMessage(interrupt("which?"))]}

    async with open_moorline(agents=[front(answering(ask))]) as moorline:
        reply = await say(moorline, "front")
        assert reply.interrupt is not None
        assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (10, 1)


async def test_a_graph_hands_over_with_the_managers_own_tool(open_moorline: Open) -> None:
    model = Telling(
        answers=[
            says("One moment.", hand_over={"agent": "nobody"}),
            says("I pass you on.", hand_over={"agent": "hair", "reason": "asked"}, hand_over_={"agent": "nails"}),
            says("back again"),
        ]
    )
    agents = [front(with_tools(model, *handover_tools())), agent("hair"), agent("nails")]
    async with open_moorline(agents=agents) as moorline:
        shown, reply = await told(moorline, "front desk")
        assert (reply, reply.agent, reply.handoffs) == ("hair 1: front desk", "hair", ("hair",))
        assert "".join(shown) == "One moment. -I pass you on. -hair 1: front desk"
        held = await moorline.session("d1")
        assert held is not None
        assert held.active_agent == "hair"
        assert await say(moorline, "hand over to front") == "back again"
    [schema] = [each["function"] for each in model.offered if each["function"]["name"] == "hand_over"]
    assert schema["parameters"]["properties"]["agent"]["enum"] == ["hair", "nails"]
    results = {message.tool_call_id: message.text for message in model.shown[-1] if isinstance(message, ToolMessage)}
    assert '"handed_over_to": "hair"' in results["call hand_over"]
    assert "does not stand" in results["call hand_over_"]
    assert "The agents are: hair, nails" in model.shown[1][-1].text


async def test_a_graph_ends_the_session(open_moorline: Open) -> None:
    model = Telling(answers=[says(end_session={}), says("Goodbye.")])
    async with open_moorline(agents=[front(with_tools(model, *handover_tools())), agent("hair")]) as moorline:
        assert await say(moorline, "front") == "Goodbye."
        assert await moorline.session("d1") is None


@pytest.mark.parametrize("goto", ["hair", Send("hair", {}), ["hair", "nails"]])
async def test_a_command_to_the_parent_graph_is_a_hand_over(open_moorline: Open, goto: Any) -> None:
    async def leave(state: MessagesState) -> Command[str]:
        return Command(goto=goto, graph=Command.PARENT, update={"messages": [AIMessage("ignored")]})

    async with open_moorline(agents=[front(answering(leave)), agent("hair"), agent("nails")]) as moorline:
        shown, reply = await told(moorline, "front desk")
        assert (reply, reply.agent, reply.handoffs) == ("hair 1: front desk", "hair", ("hair",))
        assert "".join(shown) == "hair 1: front desk"


async def test_a_call_that_went_to_the_parent_graph_is_not_left_open(open_moorline: Open) -> None:
    @tool
    def transfer(to: str) -> Command[str]:
        """Passes the person on."""
        return Command(goto=to, graph=Command.PARENT)

    model = Telling(answers=[says(transfer={"to": "hair"}), says("back again")])
    async with open_moorline(agents=[front(with_tools(model, transfer)), agent("hair")]) as moorline:
        assert (await say(moorline, "front desk")).agent == "hair"
        assert await say(moorline, "hand over to front") == "back again"
    kinds = [message.type for message in model.shown[-1]]
    assert kinds == ["human", "ai", "tool", "human", "human"], "the last but one says why hair hands over"


async def test_after_a_question_the_next_agent_is_told_what_the_person_wanted(open_moorline: Open) -> None:
    async def ask(state: MessagesState) -> Command[str]:
        return Command(goto=interrupt("to whom?"), graph=Command.PARENT)

    async with open_moorline(agents=[front(answering(ask)), agent("hair")]) as moorline:
        question = (await say(moorline, "front desk")).interrupt
        assert question is not None
        reply = await moorline.run(Resume(interrupt_id=question.id, value="hair"), {"device_id": "d1"})
        assert (reply, reply.handoffs) == ("hair 1: front desk", ("hair",))


async def test_a_hand_over_to_nobody_fails_and_says_who_is_there(open_moorline: Open) -> None:
    async def leave(state: MessagesState) -> Command[str]:
        return Command(goto="cellar", graph=Command.PARENT)

    async with open_moorline(agents=[front(answering(leave)), agent("hair")]) as moorline:
        with pytest.raises(AgentError, match=r"went to cellar in its parent graph.*there are: hair"):
            await say(moorline, "front")


def steps(**breakpoints: Any) -> tuple[Graph, list[str]]:
    ran: list[str] = []

    def step(name: str) -> Any:
        def run(state: MessagesState) -> dict[str, Any]:
            ran.append(name)
            return {"messages": [AIMessage(f"{name} done")]}

        return run

    names = ["plan", "act", "check"]
    graph = StateGraph(MessagesState).add_sequence([(name, step(name)) for name in names]).add_edge(START, "plan")
    return graph.compile(**breakpoints), ran


@pytest.mark.parametrize(
    ("breakpoints", "nexts"),
    [
        ({"interrupt_before": ["act"]}, [["act"]]),
        ({"interrupt_after": ["plan", "act"]}, [["act"], ["check"]]),
        ({"interrupt_before": "*"}, [["plan"], ["act"], ["check"]]),
    ],
)
async def test_a_static_breakpoint_is_a_question(
    open_moorline: Open, breakpoints: dict[str, Any], nexts: list[list[str]]
) -> None:
    for _ in range(2):  # in one conversation
        graph, ran = steps(**breakpoints)
        async with open_moorline(agents=[front(graph)]) as moorline:
            reply = await say(moorline, "front")
            for following in nexts:
                assert reply.interrupt is not None
                assert reply.interrupt.value["next"] == following
                before = [*ran]
                answer = Resume(interrupt_id=reply.interrupt.id, value=True)
                reply = await moorline.run(answer, {"device_id": "d1"})
                assert ran[len(before)] == following[0]
            assert (reply, reply.interrupt) == ("check done", None)
            assert ran == ["plan", "act", "check"]
            with pytest.raises(InvalidMessage):
                await moorline.run(Resume(interrupt_id="0" * 32, value=True), {"device_id": "d1"})


async def test_a_message_at_a_static_breakpoint_begins_anew(open_moorline: Open) -> None:
    graph, ran = steps(interrupt_before=["act"])
    async with open_moorline(agents=[front(graph)]) as moorline:
        first = (await say(moorline, "front")).interrupt
        assert first is not None
        second = (await say(moorline, "wait")).interrupt
        assert ran == ["plan", "plan"]
        assert second is not None
        assert second.value == {"message": "plan done", "next": ["act"]}
        with pytest.raises(InvalidMessage):
            await moorline.run(Resume(interrupt_id=first.id, value=True), {"device_id": "d1"})
        assert await moorline.run(Resume(interrupt_id=second.id, value=True), {"device_id": "d1"}) == "check done"


async def test_a_graph_that_answers_nothing_does_not_repeat_the_person(open_moorline: Open) -> None:
    async with open_moorline(agents=[front(answering(lambda _: {}))]) as moorline:
        with pytest.raises(AgentError, match="empty answer"):
            await say(moorline, "front")


async def test_only_a_graph_that_declares_the_context_gets_it(open_moorline: Open) -> None:
    async def answer(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        return {"messages": [AIMessage(str(runtime.context and runtime.context.tools.device_id))]}

    for options, answered in (({}, "None"), ({"context_schema": RunContext}, "d1")):
        async with open_moorline(agents=[front(answering(answer, **options))]) as moorline:
            assert await say(moorline, "front") == answered


@tool
def whose(what: str, runtime: ToolRuntime[RunContext]) -> str:
    """Tells whose it is."""
    return f"{what} of {runtime.context.tools.device_id}"


async def test_a_tool_of_langchains_gets_the_context(open_moorline: Open) -> None:
    model = Telling(answers=[says(whose={"what": "it"}), says("Yours.")])

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.bind_tools([whose]).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState, context_schema=RunContext)
    graph.add_node("think", think).add_node("tools", ToolNode([whose])).add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition).add_edge("tools", "think")
    async with open_moorline(agents=[front(graph.compile())]) as moorline:
        assert await say(moorline, "front") == "Yours."
    assert model.shown[-1][-1].text == "it of d1"
