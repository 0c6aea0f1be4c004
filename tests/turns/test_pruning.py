"""Old checkpoints are removed, and no later read misses them."""

from collections import Counter
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from moorline import Moorline, Resume, Settings
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.transport import rule_client
from moorline_checkpoint.saver import DeviceCheckpointer

from .claims import Connection
from .runtimes import execute, runtime, say
from .talks import LET_GO, Step, candid, conversation, differences, extended, process, take, told_coldly, told_warmly

KEPT = 5
STATE = ("checkpoints", "values", "writes", "effects")


async def kept_turns(dsn: str, ns: str) -> set[int]:
    """The turns whose checkpoints are stored."""
    rows = await execute(dsn, "SELECT turn_no FROM conversation_checkpoints WHERE checkpoint_ns = $1", ns)
    return {row["turn_no"] for row in rows}


async def sizes(connection: Connection) -> Counter[str]:
    """Rows by table."""
    counts = ", ".join(f"(SELECT count(*) FROM conversation_{table}) AS {table}" for table in STATE)  # noqa: S608
    [row] = await connection.fetch(f"SELECT {counts}")
    return Counter(dict(row))


def plain() -> GraphAgent:
    """A graph that stores all its state with every turn; a message that begins with `ask` makes it ask, two subgraphs
    down."""

    class Asked(TypedDict, total=False):
        text: str
        answer: str

    def ask(state: Asked) -> dict[str, Any]:
        return {"answer": interrupt({"question": state["text"]})}

    inner = StateGraph(Asked).add_node("ask", ask).add_edge(START, "ask").compile()

    async def answer(state: MessagesState) -> dict[str, Any]:
        text = str(state["messages"][-1].text)
        said = (await inner.ainvoke({"text": text}))["answer"] if text.startswith("ask") else "nothing"
        return {"messages": [("assistant", f"{len(state['messages'])} messages, and you answered {said}")]}

    graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
    return GraphAgent(name="plain", description="plain", graph=graph)


def plain_process(dsn: str, keep_turns: int) -> Moorline:
    settings = Settings(database_url=dsn, keep_turns=keep_turns)
    return Moorline(settings, agents=[plain()], client=lambda: rule_client(candid))


@pytest.mark.parametrize("keep_turns", [1, 2, KEPT])
async def test_the_last_turns_stay_and_fewer_than_twice_as_many(dsn: str, keep_turns: int) -> None:
    async with plain_process(dsn, keep_turns) as moorline:
        for number in range(1, 4 * keep_turns + 2):
            assert await say(moorline, "hello") == f"{2 * number - 1} messages, and you answered nothing"
            kept = await kept_turns(dsn, "plain")
            assert kept == set(range(number - len(kept) + 1, number + 1))
            assert min(number, keep_turns) <= len(kept) < 2 * keep_turns


async def test_what_deltas_start_from_stays_as_well(dsn: str) -> None:
    async with process(dsn, keep_turns=KEPT) as moorline:
        await take(moorline, Step("d1", "hand over to diary", 0))
        for number in range(2, 6 * KEPT):
            await take(moorline, Step("d1", "hello", 0))
            kept = await kept_turns(dsn, "diary")
            assert kept >= set(range(max(1, number - KEPT + 1), number + 1))
            # The diary is stored whole every three updates, and each turn brings two.
            assert len(kept) < 2 * KEPT + 3


async def diary_at(saver: DeviceCheckpointer, own_id: str) -> list[str]:
    """The diary's state at one of its checkpoints."""
    config: RunnableConfig = {"configurable": {"thread_id": "d1", "checkpoint_ns": "diary", "checkpoint_id": own_id}}
    found = await saver.aget_tuple(config)
    assert found is not None
    whole = found.checkpoint["channel_values"].get("messages")
    if whole is not None:
        return [str(one.text) for one in whole.value]
    history = (await saver.aget_delta_channel_history(config=config, channels=["messages"]))["messages"]
    start = history["seed"].value if "seed" in history else []
    return [str(one.text) for one in extended(start, [write[2] for write in history["writes"]])]


async def test_every_checkpoint_of_the_last_turns_has_the_value_it_had(dsn: str) -> None:
    newest = "SELECT heads->>'diary' AS id FROM conversation_states"
    had: dict[int, tuple[str, list[str]]] = {}
    async with process(dsn, keep_turns=KEPT) as moorline, DeviceCheckpointer.from_conn_string(dsn) as saver:
        await take(moorline, Step("d1", "hand over to diary", 0))
        for number in range(2, 4 * KEPT + 2):
            await take(moorline, Step("d1", f"message {number}", 0))
            own_id = (await execute(dsn, newest))[0]["id"]
            had[number] = own_id, await diary_at(saver, own_id)
            for own_id, said in list(had.values())[-KEPT:]:
                assert await diary_at(saver, own_id) == said
    lengths = [len(said) for _, said in had.values()]
    assert lengths == list(range(lengths[0], lengths[0] + 2 * len(had), 2))


@pytest.mark.parametrize("keep_turns", [1, 3])
async def test_agents_are_shown_the_same_as_without_pruning(dsn: str, keep_turns: int) -> None:
    steps = conversation(keep_turns, 60)
    pruned = await told_coldly(dsn, steps, keep_turns=keep_turns)
    for device in {step.device for step in steps}:
        async with process(dsn) as moorline:
            await moorline.erase(device)
    whole = await told_warmly(dsn, steps, 1)
    assert list(differences(pruned, whole, steps)) == []


async def test_an_agent_that_was_not_used_for_long_knows_all_it_knew(dsn: str) -> None:
    said = [
        *("hello", "hand over to nails", "hello", "hand over to diary", "mood glad", LET_GO),
        *["hello"] * 70,  # enough for the history of hair to be stored whole meanwhile
        *("hand over to nails", LET_GO, "hand over to diary", *["and now"] * 12),
    ]
    steps = [Step("pruned", text, 0) for text in said]
    pruned = await told_warmly(dsn, steps[:-15], 1, keep_turns=2)
    pruned += await told_coldly(dsn, steps[-15:], keep_turns=2)
    steps = [Step("whole", text, 0) for text in said]
    assert list(differences(pruned, await told_warmly(dsn, steps, 1), steps)) == []
    assert pruned[-1].startswith("diary, page 14, mood glad, has 31")


async def test_a_question_keeps_all_that_its_answer_enters(dsn: str) -> None:
    namespaces = "SELECT checkpoint_ns FROM conversation_checkpoints"
    async with plain_process(dsn, 2) as moorline:
        for _ in range(7):
            await say(moorline, "hello")
        question = (await say(moorline, "ask me")).interrupt  # the eighth turn prunes
    assert question is not None
    found = {row["checkpoint_ns"].split(":")[0] for row in await execute(dsn, namespaces)}
    assert {"", "plain"} < found
    assert await kept_turns(dsn, "plain") == {7, 8}
    async with plain_process(dsn, 2) as moorline:
        reply = await moorline.run(Resume(interrupt_id=question.id, value="yes"), {"device_id": "d1"})
        assert reply == "15 messages, and you answered yes"
        assert {row["checkpoint_ns"] for row in await execute(dsn, namespaces)} == {"", "plain"}
        assert await say(moorline, "hello") == "17 messages, and you answered nothing"


async def test_only_messages_and_turns_become_more(dsn: str, connection: Connection) -> None:
    """A history is cut, and stored whole, every 40 turns here, so its rows come and go with that."""
    largest: list[Counter[str]] = []
    async with runtime(dsn, keep_turns=KEPT) as moorline:
        for number in range(40 * 6):
            if number % 40 == 0:
                largest.append(Counter())
            await say(moorline, "hello")
            largest[-1] |= await sizes(connection)
    assert largest[4] == largest[5]
    assert 0 < largest[5]["checkpoints"] < 60 + 2 * KEPT
    for table in ("messages", "turns"):
        assert await connection.fetchval(f"SELECT count(*) FROM conversation_{table}") == 240  # noqa: S608


async def test_checkpoints_of_no_turn_stay(dsn: str) -> None:
    """Those of a copied conversation, which continues where the original ended."""
    outside = "SELECT checkpoint_id FROM conversation_checkpoints WHERE turn_no IS NULL ORDER BY checkpoint_id"
    async with plain_process(dsn, 2) as moorline, DeviceCheckpointer.from_conn_string(dsn) as saver:
        for _ in range(3):
            await say(moorline, "hello")
        await saver.acopy_thread("d1", "copy")
        copied = await execute(dsn, outside)
        assert len(copied) == 3
        for number in range(4, 16):
            assert await say(moorline, "hello", device="copy") == f"{2 * number - 1} messages, and you answered nothing"
        assert await execute(dsn, outside) == copied
