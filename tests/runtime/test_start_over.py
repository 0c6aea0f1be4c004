"""Starting over: no agent knows anything of what was said before, and the transcript stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from moorline import GraphAgent, Moorline, Resume, Settings, Texts
from moorline.errors import AgentError, InvalidMessage
from moorline.manager import AgentProtocol
from moorline_agents.transport import ModelReply, ModelRequest

from ..turns.runtimes import execute
from ..turns.talks import agents
from .conftest import Open, agent, counting

DEVICE = {"device_id": "d1"}
REPLY = "All right, let's start over. What can I do for you?"


class Diary(MessagesState, total=False):
    pages: int


def diary() -> GraphAgent:
    """A graph that says how many messages it is shown and how many pages it has, and asks before it answers
    `diary ask`."""

    def write(state: Diary) -> dict[str, Any]:
        text, pages = str(state["messages"][-1].text), state.get("pages", 0) + 1
        said = f" {interrupt('sure?')}" if text == "diary ask" else ""
        return {"messages": [("assistant", f"diary {len(state['messages'])}, page {pages}{said}")], "pages": pages}

    graph = StateGraph(Diary).add_node("write", write).add_edge(START, "write").compile()
    return GraphAgent(name="diary", description="a diary", graph=graph)


def everyone() -> list[AgentProtocol]:
    return [agent("hair"), agent("nails"), agent("desk", keeps_session=False), diary()]


async def say(moorline: Moorline, *texts: str) -> list[str]:
    return [str(await moorline.run(text, DEVICE)) for text in texts]


@pytest.mark.parametrize("words", ["start over", " Start over. ", "START OVER!"])
async def test_every_agent_begins_anew_whoever_holds_the_session(open_moorline: Open, words: str) -> None:
    async with open_moorline(agents=everyone()) as moorline:
        await say(moorline, "desk please", "hair please", "hand over to nails", "bye", "diary please")
        reply = await moorline.run(words, DEVICE)
        assert (reply, reply.agent) == (REPLY, None)
        assert await moorline.session("d1") is None
        assert await say(moorline, "desk again", "hair again", "bye", "nails again", "bye", "diary again") == [
            *("desk 1: desk again", "hair 1: hair again", "hair 2: bye"),
            *("nails 1: nails again", "nails 2: bye", "diary 1, page 2"),
        ]


async def test_it_holds_in_other_processes_and_for_agents_that_they_alone_have(open_moorline: Open) -> None:
    async with open_moorline(agents=everyone()) as one, open_moorline(agents=[agent("hair")]) as other:
        await say(one, "nails please", "bye", "diary please")
        await other.run("start over", DEVICE)
        assert await say(one, "nails again", "bye", "diary again") == [
            "nails 1: nails again",
            "nails 2: bye",
            "diary 1, page 2",
        ]


async def test_the_transcript_stays(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please", "start over", "nails please")
        said = [(entry.texts, entry.record.reply) for entry in await moorline.transcript("d1")]
        assert said == [
            (("hair please",), "hair 1: hair please"),
            (("start over",), REPLY),
            (("nails please",), "nails 1: nails please"),
        ]


async def test_a_message_that_only_mentions_it_changes_nothing(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        await say(moorline, "hair please")
        assert await say(moorline, "can we start over with the date?") == ["hair 2: can we start over with the date?"]


async def test_a_question_that_waited_is_gone(open_moorline: Open) -> None:
    async with open_moorline(agents=everyone()) as moorline:
        await say(moorline, "diary please")
        question = (await moorline.run("diary ask", DEVICE)).interrupt
        assert question is not None
        await moorline.run("start over", DEVICE)
        with pytest.raises(InvalidMessage):
            await moorline.run(Resume(interrupt_id=question.id, value="yes"), DEVICE)
        assert await say(moorline, "diary again", "and again") == ["diary 1, page 2", "diary 3, page 3"]


async def test_a_graphs_own_state_stays_whatever_its_messages_are(open_moorline: Open) -> None:
    """Also that of one whose messages are a channel of another kind. The first one after a hand-over is its reason."""
    async with open_moorline(agents=[*agents()]) as moorline:
        said = ("hair please", "hand over to diary", "mood glad", "start over", "hand over to diary")
        replies = await say(moorline, *said, "and now", "start over", "hand over to diary")
    assert [reply.split(": ")[0] for reply in replies if reply.startswith("diary")] == [
        "diary, page 0, mood none, has 2",
        "diary, page 1, mood glad, has 4",
        "diary, page 2, mood glad, has 2",
        "diary, page 3, mood glad, has 4",
        "diary, page 4, mood glad, has 2",
    ]


class Held:
    """Rules that answer `hair hold on` only when `go_on` is set, and fail at `fail`."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: ModelRequest) -> ModelReply:
        said = request.said
        if said[-1] == "hair hold on" and "route" not in request.functions:
            self.reached.set()
            await self.go_on.wait()
        if "fail" in said:
            raise LookupError(said)
        return counting(request)


async def burst(moorline: Moorline, held: Held, dsn: str, *texts: str) -> list[str]:
    """The replies to messages that come while another one is answered."""
    context = {**DEVICE, "on_busy": "merge"}
    tasks = [asyncio.create_task(moorline.run("hair hold on", context))]
    await held.reached.wait()
    for number, text in enumerate(texts, start=1):
        tasks.append(asyncio.create_task(moorline.run(text, context)))
        await _waiting(dsn, number)
    held.go_on.set()
    return [str(reply) for reply in (await asyncio.gather(*tasks))[1:]]


async def _waiting(dsn: str, number: int) -> None:
    sql = "SELECT FROM conversation_messages WHERE status = 'waiting'"
    async with asyncio.timeout(30):
        while len(await execute(dsn, sql)) < number:  # noqa: ASYNC110 - nobody calls us
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("texts", [("start over", "hair cancel it"), ("hair cancel it", "start over")])
async def test_what_else_was_said_in_a_burst_is_answered_anew(
    open_moorline: Open, dsn: str, texts: tuple[str, str]
) -> None:
    held = Held()
    async with open_moorline(rules=held) as moorline:
        await say(moorline, "hair please")
        assert await burst(moorline, held, dsn, *texts) == ["hair 1: hair cancel it"] * 2
        assert await say(moorline, "and now") == ["hair 2: and now"]
        assert [entry.texts for entry in await moorline.transcript("d1")][-2] == texts


async def test_a_burst_of_nothing_else_is_answered_with_its_reply(open_moorline: Open, dsn: str) -> None:
    held = Held()
    async with open_moorline(rules=held) as moorline:
        assert await burst(moorline, held, dsn, "start over", "Start over!") == [REPLY, REPLY]


async def test_a_turn_that_fails_starts_nothing_over(open_moorline: Open, dsn: str) -> None:
    held = Held()
    async with open_moorline(rules=held) as moorline:
        await say(moorline, "hair please")
        with pytest.raises(AgentError):
            await burst(moorline, held, dsn, "fail", "start over")
        assert await say(moorline, "hair still") == ["hair 3: hair still"]


async def test_what_it_forgets_is_pruned(dsn: str, open_moorline: Open) -> None:
    async with open_moorline(settings=Settings(database_url=dsn, keep_turns=2)) as moorline:
        await say(moorline, "hair please", *["hello"] * 3, "start over", "hair again", "hello", "hello", "hello")
    stored = await execute(dsn, "SELECT min(turn_no) AS first FROM conversation_checkpoints")
    assert stored[0]["first"] >= 5


async def test_its_words_and_its_reply_are_settings(dsn: str, open_moorline: Open) -> None:
    settings = Settings(database_url=dsn, start_over=frozenset({"von vorn"}))
    async with Moorline(settings, agents=[agent("hair")], texts=Texts(start_over="Gut, von vorn.")) as moorline:
        assert await moorline.run("Von vorn!", DEVICE) == "Gut, von vorn."


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_text_says_something(blank: str) -> None:
    with pytest.raises(ValueError, match="start_over"):
        Texts(start_over=blank)
