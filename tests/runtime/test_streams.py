"""A stream shows text while it is written, takes back what is not part of the reply, and ends with the reply."""

from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from moorline import Event, GraphAgent, Moorline, TextDelta, TextWithdrawn, ToolContext, TurnFailed, TurnFinished, tool
from moorline.errors import AgentError
from moorline.manager import AgentProtocol
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest

from .conftest import Open


class Nothing(BaseModel):
    """No arguments."""


@tool()
async def look(arguments: Nothing, context: ToolContext) -> str:
    """Looks."""
    return "red"


def talkative(request: ModelRequest) -> ModelReply:
    """Says something before it calls a tool or hands over."""
    text = request.said[-1]
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "front"}),))
    if request.system == "front" and text == "hand over":
        call = Call(name="hand_over", arguments={"agent": "desk", "reason": "asked"})
        return ModelReply(text="I will pass you on.", calls=(call,))
    looked = sum(message["role"] == "tool" for message in request.messages)
    if text == "look" and looked < 2:
        return ModelReply(text=f"Let me look, {looked}.", calls=(Call(name="look"),))
    if text == "fail" and looked:
        raise LookupError
    if text == "fail":
        return ModelReply(text="Let me look.", calls=(Call(name="look"),))
    return ModelReply(text="It is red." if text == "look" else f"{request.system} says hello.")


def graph(*, asks: bool = False) -> GraphAgent:
    """A graph of the user's own, which asks no model of ours."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("assistant", interrupt("which one?") if asks else "made by hand")]}

    compiled = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    return GraphAgent(name="front", description="fronts", graph=compiled)


def front() -> list[AgentProtocol]:
    return [Agent(name=name, description=name, instructions=name, tools=[look]) for name in ("front", "desk")]


def summary(events: Sequence[Event]) -> list[str]:
    """The texts of the deltas, with consecutive ones joined, and a sign for each other event."""
    told = [""]
    for event in events:
        match event:
            case TextDelta():
                told[-1] += event.text
            case TextWithdrawn():
                told += ["withdrawn", ""]
            case TurnFinished():
                told.append("done")
            case TurnFailed():
                told.append("failed")
    return told


async def streamed(moorline: Moorline, text: str, message_id: str = "m1") -> list[Event]:
    return [event async for event in moorline.stream(text, {"device_id": "d1", "message_id": message_id})]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", ["front says hello.", "done"]),
        ("look", ["Let me look, 0.", "withdrawn", "Let me look, 1.", "withdrawn", "It is red.", "done"]),
        ("hand over", ["I will pass you on.", "withdrawn", "desk says hello.", "done"]),
        ("fail", ["Let me look.", "withdrawn", "", "failed"]),
    ],
)
async def test_what_was_said_before_a_call_is_withdrawn(open_moorline: Open, text: str, told: list[str]) -> None:
    async with open_moorline(agents=front(), rules=talkative) as moorline:
        events = await streamed(moorline, text)
    assert summary(events) == told
    last = events[-1]
    if isinstance(last, TurnFinished):
        assert last.reply == told[-2]
    else:
        assert isinstance(last, TurnFailed)
        assert isinstance(last.error, AgentError)


async def test_text_is_told_as_it_is_written(open_moorline: Open) -> None:
    async with open_moorline(agents=front(), rules=talkative) as moorline:
        events = await streamed(moorline, "hello")
    assert sum(isinstance(event, TextDelta) for event in events) > 1
    assert not any(isinstance(event, TextWithdrawn) for event in events)


async def test_a_reply_that_was_stored_before_is_told_whole(open_moorline: Open) -> None:
    async with open_moorline(agents=front(), rules=talkative) as moorline:
        await streamed(moorline, "look")
        again = await streamed(moorline, "look")
    assert [event.type for event in again] == ["turn_started", "text_delta", "turn_finished"]
    assert summary(again) == ["It is red.", "done"]


@pytest.mark.parametrize(("asks", "reply"), [(False, "made by hand"), (True, "which one?")])
async def test_a_reply_that_no_model_wrote_is_told_whole(open_moorline: Open, asks: bool, reply: str) -> None:
    agents: list[AgentProtocol] = [graph(asks=asks), *front()[1:]]
    async with open_moorline(agents=agents, rules=talkative) as moorline:
        assert summary(await streamed(moorline, "hello")) == [reply, "done"]
