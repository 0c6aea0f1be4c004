"""What agents are told along with a message: it stays in their histories, so that what a model is shown only grows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Any

import httpx2
import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from openai import AsyncOpenAI
from pydantic import BaseModel

from moorline import Agent, GraphAgent, Moorline, Resume, Settings, ToolContext, handover_tools, tool
from moorline.testing import Call, ModelReply, ModelRequest, Script, rule_client
from moorline_agents.transport import Rules, RuleTransport
from tests.agents.model.responses_server import ResponsesServer, call, message, reasoning, stream
from tests.strict_model import SERVERS, Server, StrictModel

CONTEXT = {"device_id": "d1"}


class Nothing(BaseModel):
    pass


@tool()
async def look(_: Nothing, context: ToolContext) -> str:
    """Looks."""
    return "seen"


@tool()
async def ask(_: Nothing, context: ToolContext) -> Any:
    """Asks the person."""
    return interrupt("sure?")


def clock(context: ToolContext) -> str:
    return f"Now it is {context.now.isoformat()}."


def clocked(name: str) -> Agent:
    return Agent(name=name, description=name, instructions=name, briefing=clock, tools=[look, ask])


def talking(request: ModelRequest) -> ModelReply:
    """Calls the tool that a message names, and hands over on `to NAME NOTE`; else says its own name."""
    words = request.said[-1].split()
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "hair"}),))
    if request.messages[-1]["role"] == "user" and words[0] in request.functions:
        return ModelReply(calls=(Call(name=words[0]),))
    if request.messages[-1]["role"] == "user" and words[0] == "to" and words[1] != request.system:
        told = {"agent": words[1], "reason": "asked", "note": " ".join(words[2:])}
        return ModelReply(calls=(Call(name="hand_over", arguments=told),))
    return ModelReply(text=f"{request.system} said {len(request.said)}")


@dataclass
class Wire(httpx2.AsyncBaseTransport):
    """Keeps the bytes of the requests."""

    rules: Rules
    bodies: list[bytes] = field(default_factory=list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(await request.aread())
        return await RuleTransport(self.rules).handle_async_request(request)

    def client(self) -> AsyncOpenAI:
        http = httpx2.AsyncClient(transport=self, trust_env=False)
        return AsyncOpenAI(api_key="x", base_url="http://rules.invalid/v1", http_client=http)


def shared(body: bytes) -> bytes:
    """The request as a server reads it: the tools first, then the messages, as they came over the wire."""
    said, rest = body.index(b'"messages":['), json.loads(body)
    messages = body[said : body.index(b'],"stream', said)]
    return json.dumps(rest.get("tools")).encode() + messages


async def test_the_prefix_of_twenty_turns_is_equal_byte_for_byte(dsn: str) -> None:
    wire = Wire(talking)
    agents = [clocked("hair"), clocked("nails")]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=wire.client) as moorline:
        for number in range(20):
            text = ("look", "hello", "to nails it is urgent", "to hair now", "thanks")[number % 5]
            await moorline.run(f"{text} {number}", CONTEXT)
    for name in ("hair", "nails"):
        system = json.dumps({"role": "system", "content": name}, separators=(",", ":")).encode()
        own = [shared(body) for body in wire.bodies if system in body]
        assert len(own) > 7
        assert all(later.startswith(earlier) for earlier, later in pairwise(own))
        times = own[-1].count(b"Now it is")
        assert times > 4, "the clock is told in every turn"


async def test_the_prefix_is_so_with_the_responses_api_and_its_reasoning_too(dsn: str) -> None:
    turns = [
        (
            stream(reasoning(f"secret{n}"), call("look", "{}", f"call_{n}")),
            stream(reasoning(f"more{n}"), message("seen")),
        )
        for n in range(20)
    ]
    server = ResponsesServer(*chain.from_iterable(turns))
    agent = replace(clocked("hair"), model=server.model())
    async with Moorline(Settings(database_url=dsn), agents=[agent], client=lambda: rule_client(talking)) as moorline:
        for number in range(20):
            await moorline.run(f"look {number}", CONTEXT)
    own = [json.dumps([body["instructions"], body["tools"], body["input"]])[:-2] for body in server.requests]
    assert len(own) == 40
    assert all(later.startswith(earlier) for earlier, later in pairwise(own))
    assert '"encrypted_content": "secret0"' in own[-1]


async def test_a_run_that_goes_on_after_a_question_is_told_the_time_anew(dsn: str) -> None:
    script = Script(rules=talking)
    async with Moorline(Settings(database_url=dsn), agents=[clocked("hair")], client=lambda: rule_client(script)) as m:
        question = (await m.run("ask me", CONTEXT)).interrupt
        assert question is not None
        before = script.requests[-1].briefing
        await m.run(Resume(interrupt_id=question.id, value="yes"), CONTEXT)
    last = script.requests[-1]
    assert last.messages[-1]["role"] == "tool"
    assert "Now it is" in str(last.messages[-1]["content"])
    assert last.briefing > before


async def test_a_briefing_may_tell_facts(dsn: str) -> None:
    async def known(context: ToolContext) -> str:
        item = await context.memory.aget(("person",), "name")
        return "" if item is None else f"The person is {item.value['is']}."

    @tool()
    async def look(_: Nothing, context: ToolContext) -> str:
        """Remembers."""
        await context.memory.aput(("person",), "name", {"is": "Ana"})
        return "seen"

    script = Script(rules=talking)
    agent = Agent(name="hair", description="hair", instructions="hair", briefing=known, tools=[look])
    async with Moorline(Settings(database_url=dsn), agents=[agent], client=lambda: rule_client(script)) as moorline:
        await moorline.run("look", CONTEXT)
        assert script.requests[-1].briefing == ""
        await moorline.run("hello", CONTEXT)
    assert script.requests[-1].briefing == "The person is Ana."


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_the_next_agent_is_told_reason_and_note_and_still_knows_them_later(dsn: str, server: Server) -> None:
    model = StrictModel(rules=talking, server=server)
    agents = [clocked("hair"), clocked("nails")]
    settings = Settings(database_url=dsn, openai_model=server.name)
    async with Moorline(settings, agents=agents, client=lambda: rule_client(model)) as moorline:
        await moorline.run("hello", CONTEXT)
        assert (await moorline.run("to nails Ana likes red", CONTEXT)).agent == "nails"
        told = model.requests[-1].briefing
        assert 'reason: "asked"\nnote: "Ana likes red"' in told
        assert told.startswith("hair handed this conversation over to you.")
        await moorline.run("thanks", CONTEXT)
    assert "Ana likes red" in str(model.requests[-1].messages[1]["content"])
    assert "Ana" not in model.requests[-1].briefing
    assert not [refused for refused in model.refused if "note" in refused or "briefing" in refused]


async def test_a_graph_is_told_in_a_message_before_the_persons(dsn: str) -> None:
    shown: list[list[str]] = []

    async def answer(state: MessagesState) -> dict[str, Any]:
        shown.append([str(message.text) for message in state["messages"]])
        return {"messages": [AIMessage("done")]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").add_edge("answer", END)
    agents: list[Any] = [clocked("hair"), GraphAgent(name="nails", description="nails", graph=graph.compile())]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(talking)) as moorline:
        assert await moorline.run("to nails Ana likes red", CONTEXT) == "done"
    [[briefing, text]] = shown
    assert text == "to nails Ana likes red"
    assert briefing.startswith("<briefing>\nhair handed this conversation over")
    assert 'note: "Ana likes red"' in briefing


async def test_a_hand_over_to_oneself_is_refused_and_the_turn_goes_on(dsn: str) -> None:
    def selfish(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "user":
            return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "hair", "reason": "x"}),))
        return ModelReply(text=str(request.messages[-1]["content"]))

    agents = [replace(clocked("hair"), aliases=["barber"]), replace(clocked("nails"), routable=False)]
    async with Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(selfish)) as moorline:
        reply = await moorline.run("hello", CONTEXT)
        assert "You are hair: the conversation is yours already." in reply
        assert (reply.agent, reply.handoffs) == ("hair", ())
        assert await moorline.run("and again", CONTEXT)


def test_the_tool_of_graphs_takes_a_note_too() -> None:
    [hand_over, _] = handover_tools()
    assert set(hand_over.args) == {"agent", "reason", "note"}
