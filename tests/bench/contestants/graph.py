"""A plain LangGraph graph of two nodes, on one saver or another, with LangGraph's default durability."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from tests.bench.contestants import Turn
from tests.bench.conversation import answer


async def a(state: MessagesState) -> dict[str, Any]:
    """Has nothing to say."""
    return {"messages": []}


async def b(state: MessagesState) -> dict[str, Any]:
    """Answers at once."""
    shown = sum(message.type == "human" for message in state["messages"])
    return {"messages": [AIMessage(answer(shown))]}


def on(saver: BaseCheckpointSaver[Any]) -> Turn:
    """The graph, compiled on a saver."""
    builder = StateGraph(MessagesState)
    builder.add_node("a", a)
    builder.add_node("b", b)
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", END)
    graph = builder.compile(checkpointer=saver)

    async def turn(device: str, text: str) -> str:
        said: Any = {"messages": [{"role": "user", "content": text}]}
        state = await graph.ainvoke(said, {"configurable": {"thread_id": device}})
        return str(state["messages"][-1].content)

    return turn


@asynccontextmanager
async def on_moorline(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """On our saver, with its defaults."""
    from moorline_checkpoint.saver import DeviceCheckpointer

    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        await saver.setup()
        yield on(saver)


@asynccontextmanager
async def in_memory(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """On a dictionary in this process."""
    yield on(InMemorySaver())


@asynccontextmanager
async def on_postgres(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """On LangGraph's own saver for PostgreSQL."""
    from tests.bench.contestants.postgres_saver import postgres_saver

    async with postgres_saver(dsn) as saver:
        yield on(saver)
