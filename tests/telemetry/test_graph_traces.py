"""What a team's own graph does is in the trace as well."""

from typing import Any

import pytest
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from moorline import GraphAgent, Resume
from moorline.errors import AgentError
from tests.turns.runtimes import say

from .traces import Traces, traced


@tool
async def look(what: str) -> str:
    """Looks."""
    if what == "sun":
        raise LookupError(what)
    return "red"


def looking(*answers: BaseMessage, traces: Traces | None = None) -> GraphAgent:
    model = FakeMessagesListChatModel(responses=list(answers))

    async def answer(state: MessagesState) -> dict[str, Any]:
        if traces is None:
            return {"messages": [await model.ainvoke(state["messages"])]}
        with traces.tracer.start_as_current_span("GET https://weather.test"):
            return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_node("tools", ToolNode([look]))
    graph.add_edge(START, "answer").add_conditional_edges("answer", tools_condition, ["tools", END])
    return GraphAgent(name="graph", description="looks", graph=graph.add_edge("tools", "answer").compile())


def calls(what: str) -> AIMessage:
    call: Any = {"name": "look", "args": {"what": what}, "id": "call_7"}
    return AIMessage("", tool_calls=[call], response_metadata={"finish_reason": "tool_calls"})


async def test_models_and_tools_of_a_graph_have_spans(dsn: str, traces: Traces) -> None:
    counted: Any = {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14}
    agent = looking(calls("car"), AIMessage("It is red.", usage_metadata=counted), traces=traces)
    async with traced(dsn, traces, agents=[agent]) as moorline:
        await say(moorline, "Which colour?", "m1")
    assert [line.strip() for line in traces.tree().splitlines() if "http" not in line] == [
        *("turn", "begin", "invoke_agent graph", "chat", "execute_tool look", "chat", "commit")
    ]
    tools = traces.one("execute_tool look")
    assert (tools["gen_ai.tool.call.id"], tools["gen_ai.tool.name"]) == ("call_7", "look")
    first, second = traces.attributes("chat")
    assert first["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert (second["gen_ai.usage.input_tokens"], second["gen_ai.usage.output_tokens"]) == (11, 3)
    assert "red" not in traces.everything()
    # What the graph's own code does belongs to the agent's part.
    (part,) = traces.named("invoke_agent graph")
    assert all(span.parent == part.context for span in traces.named("GET https://weather.test"))


async def test_what_is_said_in_a_graph_is_recorded_if_it_is_asked_for(dsn: str, traces: Traces) -> None:
    agent = looking(calls("car"), AIMessage("It is red."))
    async with traced(dsn, traces, agents=[agent], content=True) as moorline:
        await say(moorline, "Which colour?", "m1")
    said = traces.one("execute_tool look")
    assert (said["gen_ai.tool.call.arguments"], said["gen_ai.tool.call.result"]) == ('{"what": "car"}', '"red"')
    first, second = traces.attributes("chat")
    assert "Which colour?" in first["gen_ai.input.messages"]
    assert "It is red." in second["gen_ai.output.messages"]


async def test_a_graphs_tool_that_raises_has_failed(dsn: str, traces: Traces) -> None:
    async with traced(dsn, traces, agents=[looking(calls("sun"))]) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "Which colour?", "m1")
    assert traces.one("execute_tool look")["error.type"] == "LookupError"
    assert traces.one("invoke_agent graph")["error.type"] == "AgentError"
    assert "sun" not in traces.everything()


async def test_a_question_is_no_failure_and_its_answer_is_a_trace_of_its_own(dsn: str, traces: Traces) -> None:
    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("assistant", f"So {interrupt('Really?')}.")]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    agent = GraphAgent(name="graph", description="asks", graph=graph)
    async with traced(dsn, traces, agents=[agent]) as moorline:
        asked = await say(moorline, "Cancel it", "m1")
        assert asked.interrupt is not None
        answer = Resume(interrupt_id=asked.interrupt.id, value="yes")
        assert await moorline.run(answer, {"device_id": "d1", "message_id": "m2"}) == "So yes."
    first, second = traces.attributes("turn")
    assert first["moorline.turn.asked"]
    assert "moorline.turn.asked" not in second
    assert all(span.status.is_unset for span in traces.spans)
