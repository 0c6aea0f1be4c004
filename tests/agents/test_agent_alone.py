"""An agent of the kit without a manager: a LangGraph graph like any other, on any checkpointer."""

from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from moorline.testing import Call, ModelReply, ModelRequest, rule_client
from moorline_agents import Agent, ChatModel, tool
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.run import AgentDeps, AgentInfo, RunContext
from moorline_agents.tools import ToolContext


class Nothing(BaseModel):
    pass


@tool()
async def look(nothing: Nothing, context: ToolContext) -> str:
    """Looks."""
    return f"seen for {context.device_id}"


def rules(request: ModelRequest) -> ModelReply:
    said = [message["content"] for message in request.messages if message["role"] == "user"]
    last = request.messages[-1]
    if last["role"] == "tool":
        return ModelReply(text=f"{len(said)}: {last['content']}")
    if said[-1] == "away":
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "nails", "reason": "asked"}),))
    return ModelReply(calls=(Call(name="look"),))


async def test_an_agent_compiles_alone_and_gives_way_by_ending() -> None:
    model = ChatModel(client=rule_client(rules), model="rules", timeout=5)
    deps = AgentDeps(model=model, others=(AgentInfo(name="nails", description="nails"),))
    agent = Agent(name="hair", description="hair", instructions="hair", tools=[look])
    graph = agent.compile(deps, checkpointer=InMemorySaver())

    async def say(text: str) -> RunContext:
        tools = ToolContext(device_id="d1", now=datetime.now(UTC), values={}, transaction=_no_transaction)
        context = RunContext(tools=tools)
        config: Any = {"configurable": {"thread_id": "d1"}}
        await graph.ainvoke({"texts": [text]}, config, context=context)
        return context

    assert (await say("look")).progress.reply == '1: "seen for d1"'
    assert (await say("look")).progress.reply == '2: "seen for d1"'
    given_way = (await say("away")).progress
    assert (given_way.reply, given_way.handoffs) == ("", ("nails",))
    assert (await say("look")).progress.reply == '4: "seen for d1"'


async def test_alone_too_a_call_that_has_to_be_confirmed_runs_only_with_a_yes() -> None:
    done = []

    @tool(confirm="Pay?")
    async def look(nothing: Nothing, context: ToolContext) -> str:
        """Pays."""
        done.append(context.device_id)
        return "paid"

    model = ChatModel(client=rule_client(rules), model="rules", timeout=5)
    agent = Agent(name="till", description="till", instructions="till", tools=[look])
    graph = agent.compile(AgentDeps(model=model), checkpointer=InMemorySaver())

    async def go_on(given: Any) -> str:
        tools = ToolContext(device_id="d1", now=datetime.now(UTC), values={}, transaction=_no_transaction)
        context = RunContext(tools=tools)
        await graph.ainvoke(given, {"configurable": {"thread_id": "d1"}}, context=context)
        return context.progress.reply

    for said in ("no", False, {"yes": True}):
        assert await go_on({"texts": ["pay"]}) == ""
        assert "not_confirmed" in await go_on(Command(resume=said))
    assert done == []
    for said in ("Yes!", True):
        await go_on({"texts": ["pay"]})
        assert "paid" in await go_on(Command(resume=said))
    assert len(done) == 2


@pytest.mark.parametrize("ttl", [0, -1, 1.5, True, "60", 2**31])
def test_a_session_ttl_that_no_lock_could_have_is_refused(ttl: Any) -> None:
    graph = StateGraph(MessagesState).add_edge(START, END).compile()
    with pytest.raises(ValueError, match="positive number of whole seconds"):
        Agent(name="hair", description="hair", instructions="hair", session_ttl=ttl)
    with pytest.raises(ValueError, match="positive number of whole seconds"):
        GraphAgent(name="hair", description="hair", graph=graph, session_ttl=ttl)


def _no_transaction() -> Any:
    raise AssertionError("nothing here needs the database")
