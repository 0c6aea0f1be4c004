"""An agent that stops to ask: the question is the reply, and a `Resume` is the answer."""

from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from moorline import Reply, Resume, Texts
from moorline.errors import InvalidMessage
from moorline.manager import AgentProtocol
from moorline_agents.graph_agent import GraphAgent

from .conftest import Open, agent


def asking() -> GraphAgent:
    """Asks before it answers a message that begins with `ask`."""

    def answer(state: MessagesState) -> dict[str, Any]:
        text = str(state["messages"][-1].text)
        if text.startswith("ask"):
            said = interrupt({"question": f"really {text}?"})
            if text.endswith("twice"):
                said += f" and {interrupt('sure?')}"
            return {"messages": [("assistant", f"you said {said}")]}
        return {"messages": [("assistant", f"asking {len(state['messages'])}: {text}")]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    return GraphAgent(name="ask", description="asks", graph=graph)


async def asked(open_moorline: Open) -> Reply:
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        return await moorline.run("ask me", {"device_id": "d1", "message_id": "m1"})


async def test_the_question_is_the_reply_and_says_what_it_waits_for(open_moorline: Open) -> None:
    reply = await asked(open_moorline)
    assert reply.interrupt is not None
    assert reply.interrupt.value == {"question": "really ask me?"}
    assert reply.agent == "ask"


async def test_a_resume_in_another_runtime_answers_it(open_moorline: Open) -> None:
    question = (await asked(open_moorline)).interrupt
    assert question is not None
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        answer = Resume(interrupt_id=question.id, value="yes")
        reply = await moorline.run(answer, {"device_id": "d1"})
        assert (reply, reply.interrupt, reply.turn_no) == ("you said yes", None, 2)
        again = await moorline.run(answer, {"device_id": "d1"})
        assert (again, again.replayed) == ("you said yes", True)
        assert await moorline.run("and now", {"device_id": "d1"}) == "asking 3: and now"


async def test_one_run_may_ask_again(open_moorline: Open) -> None:
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        for _ in range(2):
            first = (await moorline.run("ask me twice", {"device_id": "d1"})).interrupt
            assert first is not None
            second = (await moorline.run(Resume(interrupt_id=first.id, value="yes"), {"device_id": "d1"})).interrupt
            assert second is not None
            assert second.value == "sure?"
            assert second.id != first.id
            reply = await moorline.run(Resume(interrupt_id=second.id, value="yes"), {"device_id": "d1"})
            assert reply == "you said yes and yes"


async def test_an_interrupted_message_is_replayed_with_its_question(open_moorline: Open) -> None:
    first = await asked(open_moorline)
    again = await asked(open_moorline)
    assert (again, again.replayed, again.interrupt) == (first, True, first.interrupt)


async def test_a_message_instead_of_an_answer_moves_on(open_moorline: Open) -> None:
    question = (await asked(open_moorline)).interrupt
    assert question is not None
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        assert await moorline.run("never mind", {"device_id": "d1"}) == "asking 2: never mind"
        with pytest.raises(InvalidMessage, match="is waiting for an answer"):
            await moorline.run(Resume(interrupt_id=question.id, value="yes"), {"device_id": "d1"})
        assert await moorline.run("next", {"device_id": "d1"}) == "asking 4: next"


async def test_an_answer_that_comes_too_late_is_refused_however_often_it_is_delivered(open_moorline: Open) -> None:
    question = (await asked(open_moorline)).interrupt
    assert question is not None
    late = Resume(interrupt_id=question.id, value="yes")
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        assert await moorline.run("never mind", {"device_id": "d1"}) == "asking 2: never mind"
        for message_id in [None, "webhook-1"] * 5:
            with pytest.raises(InvalidMessage, match=r"is waiting for an answer.* Send a message instead\.$") as caught:
                await moorline.run(late, {"device_id": "d1", "message_id": message_id})
            assert not caught.value.effects_kept
        assert await moorline.dead_letters() == []
        assert await moorline.run("next", {"device_id": "d1"}) == "asking 4: next"


async def test_an_agent_whose_graph_has_changed_since_goes_on(open_moorline: Open) -> None:
    """The node that asked no longer exists, nor does the state it had."""

    class Other(MessagesState):
        mood: str

    def greet(state: Other) -> dict[str, Any]:
        return {"messages": [("assistant", f"changed {len(state['messages'])}")], "mood": "good"}

    question = (await asked(open_moorline)).interrupt
    assert question is not None
    changed = StateGraph(Other).add_node("greet", greet).add_edge(START, "greet").compile()
    agents: list[AgentProtocol] = [GraphAgent(name="ask", description="asks", graph=changed), agent("hair")]
    async with open_moorline(agents=agents) as moorline:
        answer = Resume(interrupt_id=question.id, value="yes")
        assert await moorline.run(answer, {"device_id": "d1"}) == Texts().closed
        # It knows the message that was asked about, and this one.
        assert await moorline.run("hello", {"device_id": "d1"}) == "changed 2"


async def test_an_answer_to_nothing_is_refused(open_moorline: Open) -> None:
    async with open_moorline(agents=[asking(), agent("hair")]) as moorline:
        with pytest.raises(InvalidMessage, match="is waiting for an answer"):
            await moorline.run(Resume(interrupt_id="none", value=1), {"device_id": "d1"})
