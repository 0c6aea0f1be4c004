"""Facts that agents keep of a person are read as the turn leaves them, and committed with it or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from moorline import GraphAgent, Moorline, Settings, execution
from moorline.errors import AgentError, StaleTurn
from moorline_agents.agent import Agent
from moorline_agents.run import RunContext
from moorline_agents.tools import ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest
from moorline_checkpoint import FactStore
from moorline_checkpoint.facts import TURN_FACTS
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns

from .claims import Connection, claim, expire_lease, message, record
from .conftest import Workers
from .runtimes import Stall, Thing, execute, obedient, runtime, say
from .test_retention import age

ROOM = ("people", "family")


@pytest.fixture
async def saver(dsn: str) -> AsyncIterator[DeviceCheckpointer]:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        yield saver


async def facts(store: BaseStore) -> dict[str, Any]:
    """All that a store has, by key."""
    return {item.key: item.value["is"] for item in await store.asearch(())}


async def stored(connection: Connection) -> list[tuple[str, str, str]]:
    """Whose facts are stored: device, namespace and key."""
    rows = await connection.fetch("SELECT device_id, namespace, key FROM conversation_facts ORDER BY 1, 2, 3")
    return [tuple(row) for row in rows]


async def keep(saver: DeviceCheckpointer, turns: Turns, message_id: str, device: str = "d1", **named: Any) -> None:
    """One turn of the agent `desk` that writes these facts."""
    turn = await claim(turns, message(message_id, device=device))
    for key, value in named.items():
        await saver.memory(turn, "desk").aput(ROOM, key, {"is": value})
    await turns.commit(turn, record(turn))


async def test_a_turn_reads_what_it_wrote_and_stores_it_with_its_commit(
    saver: DeviceCheckpointer, turns: Turns, connection: Connection
) -> None:
    await keep(saver, turns, "m0", old="before", pet="Rex")
    turn = await claim(turns, message("m1"))
    memory = saver.memory(turn, "desk")
    await memory.aput(ROOM, "name", {"is": "Ada"})
    await memory.aput(ROOM, "old", {"is": "after"})
    await memory.aput(("later",), "n", {"is": 1})
    await memory.adelete(ROOM, "pet")
    assert await facts(memory) == {"name": "Ada", "old": "after", "n": 1}
    assert await memory.aget(ROOM, "pet") is None
    assert [item.key for item in await memory.asearch(ROOM, filter={"is": {"$lt": "a"}})] == ["name"]
    assert await memory.alist_namespaces() == [("later",), ROOM]
    assert await stored(connection) == [("d1", "desk.people.family.", key) for key in ("old", "pet")]
    await turns.commit(turn, record(turn))
    await turns.commit(turn, record(turn))  # as if the acknowledgement had been lost

    following = saver.memory(await claim(turns, message("m2")), "desk")
    assert await facts(following) == {"name": "Ada", "old": "after", "n": 1}
    assert await following.alist_namespaces() == [("later",), ROOM]


async def test_a_fact_is_what_was_written_whatever_becomes_of_the_object(
    saver: DeviceCheckpointer, turns: Turns
) -> None:
    turn = await claim(turns, message("m1"))
    memory = saver.memory(turn, "desk")
    value: dict[Any, Any] = {"is": ["a"], 1: (2, 3)}
    await memory.aput(ROOM, "k", value)
    value["is"].append("b")
    wanted = {"is": ["a"], "1": [2, 3]}
    for _ in range(2):
        item = await memory.aget(ROOM, "k")
        assert item is not None
        assert item.value == wanted
        item.value["is"].append("c")
    await turns.commit(turn, record(turn))
    stored = await saver.memory(await claim(turns, message("m2")), "desk").aget(ROOM, "k")
    assert stored is not None
    assert stored.value == wanted


async def test_a_turn_that_fails_leaves_no_fact(
    saver: DeviceCheckpointer, turns: Turns, worker: Workers, connection: Connection
) -> None:
    await keep(saver, turns, "m0", name="Ada")
    failing = await claim(turns, message("m1"))
    await saver.memory(failing, "desk").aput(ROOM, "name", {"is": "Grace"})
    await turns.release(failing, notify="m1", failure="AgentError", give_back=False)

    taken_over = await claim(turns, message("m1"))
    memory = saver.memory(taken_over, "desk")
    assert await facts(memory) == {"name": "Ada"}
    await memory.adelete(ROOM, "name")
    await expire_lease(connection)
    other = await claim(worker(), message("m1"))
    with pytest.raises(StaleTurn):
        await turns.commit(taken_over, record(taken_over))
    assert await facts(saver.memory(other, "desk")) == {"name": "Ada"}


async def test_no_agent_and_no_person_reads_the_facts_of_another(saver: DeviceCheckpointer, turns: Turns) -> None:
    await keep(saver, turns, "m0", "d2", name="Grace")
    turn = await claim(turns, message("m1"))
    await saver.memory(turn, "desk").aput(ROOM, "name", {"is": "Ada"})
    await saver.memory(turn, "desk-2").aput(ROOM, "name", {"is": "Lin"})
    for _ in range(2):
        assert await facts(saver.memory(turn, "desk")) == {"name": "Ada"}
        assert await facts(saver.memory(turn, "desk-2")) == {"name": "Lin"}
        assert await facts(saver.memory(turn, "des")) == {}
        if not turn.facts.over:
            await turns.commit(turn, record(turn))
    async with FactStore(saver.database) as alone:
        await alone.aput(("desk", *ROOM), "name", {"is": "nobody's"})
        assert await facts(alone) == {"name": "nobody's"}
    assert await facts(saver.memory(turn, "desk")) == {"name": "Ada"}


async def test_a_renamed_agent_keeps_its_facts_and_moves_those_that_it_writes(
    saver: DeviceCheckpointer, turns: Turns, connection: Connection
) -> None:
    await keep(saver, turns, "m0", name="Ada", pet="Rex", car="none")
    turn = await claim(turns, message("m1"))
    renamed = saver.memory(turn, "office", "desk")
    await renamed.aput(ROOM, "name", {"is": "Grace"})
    await renamed.adelete(ROOM, "car")
    wanted = {"name": "Grace", "pet": "Rex"}
    assert await facts(renamed) == wanted
    assert [
        item and item.value["is"] for item in [await renamed.aget(ROOM, key) for key in ("name", "pet", "car")]
    ] == [
        "Grace",
        "Rex",
        None,
    ]
    await turns.commit(turn, record(turn))
    later = saver.memory(await claim(turns, message("m2")), "office", "desk")
    assert await facts(later) == wanted
    assert await later.alist_namespaces() == [ROOM]
    assert await stored(connection) == [("d1", "desk.people.family.", "pet"), ("d1", "office.people.family.", "name")]


async def test_a_turn_writes_no_more_than_it_may_and_nothing_after_its_end(
    saver: DeviceCheckpointer, turns: Turns, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    memory = saver.memory(turn, "desk")
    for n in range(TURN_FACTS):
        await memory.aput(ROOM, f"k{n % 7}", {"is": n})
    with pytest.raises(ValueError, match="1,000 facts"):
        await memory.aput(ROOM, "one more", {"is": 1})
    for _ in range(TURN_FACTS):
        await memory.aget(ROOM, "k1")  # reading is no writing
    await turns.commit(turn, record(turn))
    with pytest.raises(StaleTurn):
        await memory.aput(ROOM, "too late", {"is": 1})
    assert len(await stored(connection)) == 7

    large = saver.memory(await claim(turns, message("m2")), "desk")
    with pytest.raises(ValueError, match="bytes in all"):
        await asyncio.gather(*(large.aput(ROOM, f"l{n}", {"is": "x" * 60_000}) for n in range(18)))


async def test_a_fact_lives_on_if_a_turn_reads_it_and_is_gone_once_it_has_expired(
    saver: DeviceCheckpointer, turns: Turns, connection: Connection
) -> None:
    turn = await claim(turns, message("m1"))
    for key in ("read", "unread", "gone"):
        await saver.memory(turn, "desk").aput(ROOM, key, {"is": key}, ttl=10)
    await turns.commit(turn, record(turn))
    await connection.execute("UPDATE conversation_facts SET expires_at = expires_at - interval '5 min'")
    await connection.execute("UPDATE conversation_facts SET expires_at = now() WHERE key = 'gone'")

    turn = await claim(turns, message("m2"))
    memory = saver.memory(turn, "desk")
    assert await memory.aget(ROOM, "gone") is None
    assert await memory.aget(ROOM, "read") is not None
    await memory.asearch(ROOM, refresh_ttl=False)
    left = "SELECT key, expires_at > now() + interval '8 min' AS renewed FROM conversation_facts ORDER BY key"
    assert [row["renewed"] for row in await connection.fetch(left)] == [False, False, False]
    await turns.commit(turn, record(turn))
    assert {row["key"]: row["renewed"] for row in await connection.fetch(left)} == {
        "gone": False,
        "read": True,
        "unread": False,
    }


class World:
    """Tools that remember, each with another kind of effect; a call for `refused` or `failing` does not end well."""

    def __init__(self) -> None:
        self.called: list[str] = []

    async def _remember(self, thing: Thing, context: ToolContext) -> dict[str, Any]:
        """Remembers it, and says all that is remembered."""
        self.called.append(thing.what)
        known = await context.memory.asearch(())
        await context.memory.aput(ROOM, thing.what, {"is": len(known)})
        if thing.what == "refused":
            raise ToolRefused("not today")
        if thing.what == "failing":
            raise LookupError
        return {"known": ", ".join(sorted(item.key for item in await context.memory.asearch(())))}

    def agent(self) -> Agent:
        remember = self._remember
        tools = [
            tool(name="note", effect="none")(remember),
            tool(name="book", effect="database")(remember),
            tool(name="ring", effect="outside")(remember),
        ]
        return Agent(name="desk", description="remembers", instructions="desk", tools=tools)


@pytest.mark.parametrize("kind", ["note", "book", "ring"])
async def test_what_a_tool_remembers_is_kept_with_its_turn_only(kind: str, dsn: str, connection: Connection) -> None:
    async with runtime(dsn, agent=World().agent()) as moorline:
        assert await say(moorline, f"{kind} a b", "m1") == "1: a; a, b"
        with pytest.raises(AgentError):
            await say(moorline, f"{kind} c failing", "m2")
        assert await stored(connection) == [("d1", "desk.people.family.", key) for key in ("a", "b")]
        assert await say(moorline, f"{kind} d", "m3") == "2: a, b, d"
    # A refused database tool has changed nothing, not even a fact.
    async with runtime(dsn, agent=World().agent()) as moorline:
        await say(moorline, f"{kind} refused", "m4")
    assert ("refused" in [key for *_, key in await stored(connection)]) == (kind != "book")


@pytest.mark.parametrize("kind", ["note", "book", "ring"])
async def test_a_rerun_keeps_the_facts_of_calls_that_it_does_not_make_again(
    kind: str, dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    world, stall = World(), Stall(lambda request: request.messages[-1]["role"] == "tool")
    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(runtime(dsn, stall, agent=world.agent()))
        task = asyncio.create_task(say(dying, f"{kind} a b", "m1"))
        await stall.reached.wait()
        await expire_lease(connection)
        assert await stored(connection) == []
        async with runtime(dsn, agent=world.agent()) as moorline:
            assert await say(moorline, f"{kind} a b", "m1") == "1: a; a, b"
        assert world.called == (["a", "b"] * 2 if kind == "note" else ["a", "b"])
        assert await stored(connection) == [("d1", "desk.people.family.", key) for key in ("a", "b")]
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await task


def remembering(*, with_store: BaseStore | None = None) -> GraphAgent:
    """A graph whose nodes use LangGraph's store, one of them in a thread."""

    async def note(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        assert runtime.store is not None
        await runtime.store.aput(ROOM, str(state["messages"][-1].content), {"is": 1})
        return {}

    def tell(state: MessagesState, runtime: Runtime[RunContext]) -> dict[str, Any]:
        assert runtime.store is not None
        assert state["messages"]
        known = sorted(item.key for item in runtime.store.search(()))
        return {"messages": [("ai", ", ".join(known))]}

    graph = StateGraph(MessagesState, context_schema=RunContext)
    graph.add_node("note", note)
    graph.add_node("tell", tell)
    graph.add_edge(START, "note")
    graph.add_edge("note", "tell")
    return GraphAgent(name="graph", description="remembers", graph=graph.compile(store=with_store))


async def test_the_store_of_a_graph_is_its_agents_memory(dsn: str, connection: Connection) -> None:
    async with Moorline(Settings(database_url=dsn), agents=[remembering()]) as moorline:
        assert await say(moorline, "a") == "a"
        assert await say(moorline, "b") == "a, b"
        assert await say(moorline, "c", device="d2") == "c"
    assert [row[:2] for row in await stored(connection)] == [
        ("d1", "graph.people.family."),
        ("d1", "graph.people.family."),
        ("d2", "graph.people.family."),
    ]


async def test_a_store_that_a_graph_was_compiled_with_stays(dsn: str, connection: Connection) -> None:
    async with FactStore.from_conn_string(dsn) as own:
        agent = remembering(with_store=own)
        async with Moorline(Settings(database_url=dsn), agents=[agent]) as moorline:
            assert await say(moorline, "a") == "a"
            assert await say(moorline, "b", device="d2") == "a, b"
    assert {row[0] for row in await stored(connection)} == {""}


async def test_linked_devices_share_facts_which_are_exported_and_erased_with_the_person(
    dsn: str, saver: DeviceCheckpointer, connection: Connection
) -> None:
    async with runtime(dsn, agent=World().agent()) as moorline:
        await say(moorline, "note a")
        await moorline.link("d2", await moorline.link_code("d1"))
        assert await say(moorline, "note b", device="d2") == "2: a, b"
        exported = (await saver.export("d2"))["moorline"]["facts"]
        assert [(fact["namespace"], fact["key"], fact["value"]) for fact in exported] == [
            ("desk.people.family.", "a", {"is": 0}),
            ("desk.people.family.", "b", {"is": 1}),
        ]
        async with FactStore.from_conn_string(dsn) as others:
            await others.aput(ROOM, "a", {"is": 1})
            await moorline.erase("d2", scope="person")
        assert await stored(connection) == [("", "people.family.", "a")]


async def test_facts_that_have_expired_are_cleaned_up(dsn: str) -> None:
    async with runtime(dsn, agent=World().agent()) as moorline:
        await say(moorline, "note a b")
        await execute(dsn, "UPDATE conversation_facts SET expires_at = now() WHERE key = 'a'")
        await moorline.clean_up()
        assert [row["key"] for row in await execute(dsn, "SELECT key FROM conversation_facts")] == ["b"]


async def test_the_page_on_memory_says_how(dsn: str) -> None:
    page = (Path(__file__).parents[2] / "docs/memory.md").read_text().split("## Facts")[1]
    made: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], made)  # noqa: S102 - our own page
    tools = [made["remember_name"], made["known_facts"]]
    agent = Agent(name="desk", description="remembers", instructions="desk", tools=tools)

    def rules(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "tool":
            return ModelReply(text=request.messages[-1]["content"] or "")
        said = request.said[-1]
        remember = Call(name="remember_name", arguments={"name": said.removeprefix("I am ")})
        call = remember if said.startswith("I am ") else Call(name="known_facts")
        return ModelReply(calls=(call,))

    async with runtime(dsn, rules, agent=agent) as moorline:
        assert await say(moorline, "I am Ada") == '{"remembered": "Ada"}'
        assert await say(moorline, "Who am I?") == '{"name": "Ada"}'


async def test_retention_forgets_a_device_that_nobody_uses_and_none_that_is_in_use(
    dsn: str, saver: DeviceCheckpointer, connection: Connection
) -> None:
    async with runtime(dsn, agent=World().agent()) as moorline:
        for device in ("d1", "d2"):
            await say(moorline, "note a", device=device)
            await age(connection, device=device)
        await say(moorline, "hello", device="d2")
    await remove_older(saver.database, days=30)
    assert await stored(connection) == [("d2", "desk.people.family.", "a")]


async def test_without_a_store_nothing_is_remembered_and_the_model_is_told_so() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    async with runtime(nowhere, agent=World().agent(), on_store_down="stateless") as moorline:
        reply = await say(moorline, "note a")
    assert reply.degraded
    assert "cannot be reached" in reply


async def test_a_briefing_tells_the_facts(dsn: str) -> None:
    async def known(context: ToolContext) -> str:
        return ", ".join(sorted(item.key for item in await context.memory.asearch(())))

    told: list[str] = []

    def rules(request: ModelRequest) -> ModelReply:
        told.append(request.briefing)
        return obedient(request)

    async with runtime(dsn, rules, agent=replace(World().agent(), briefing=known)) as moorline:
        await say(moorline, "note a b")
        await say(moorline, "hello")
    assert told[-1] == "a, b"
