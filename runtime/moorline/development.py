"""The manager graph without turns, for development: LangGraph's own tools draw it, show it and run it.

`langgraph dev` finds it by `langgraph.json`. Its runs pass Begin and Commit by: no conversation is stored, no message
waits for another, and tools get no database. Sessions and facts are in memory.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore

from moorline.app import find_app
from moorline_agents.run import RunContext
from moorline_agents.tools import Connection, ToolContext, ToolRefused
from moorline_checkpoint.saver import DeviceCheckpointer

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from moorline.runtime import Moorline

_NO_DATABASE = "There is no database while the graph is developed: say so, and go on."


class _Locks(DeviceCheckpointer):
    """Sessions in memory, for a graph that is compiled without a saver. It never connects."""

    def __init__(self) -> None:
        database = DeviceCheckpointer.from_conn_string("postgresql://none.invalid/none").database
        super().__init__(database)
        self._holders: dict[str, str] = {}

    async def get_session_lock(self, device_id: str) -> str | None:
        return self._holders.get(device_id)

    async def set_session_lock(self, device_id: str, agent_key: str, **_: Any) -> bool:
        self._holders[device_id] = agent_key
        return True

    async def clear_session_lock(self, device_id: str, **_: Any) -> bool:
        return self._holders.pop(device_id, None) is not None


def graph_of(app: Moorline) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The manager graph of the app's agents, compiled without a saver. Nothing is opened."""
    return app.manager_on(_Locks()).compile().copy({"checkpointer": None})


_LOCKS = _Locks()
_MEMORIES: defaultdict[tuple[str, str], InMemoryStore] = defaultdict(InMemoryStore)


def manager(config: RunnableConfig) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The manager graph of the app that `MOORLINE_APP` names, by default of the agents that ship, for one run of
    `langgraph dev`. Its input is `{"texts": ["…"]}`; what an agent answers is the last message of its history."""
    thread = str(config.get("configurable", {}).get("thread_id", "development"))
    tools = ToolContext(
        device_id=thread,
        now=datetime.now(UTC),
        values={},
        transaction=_no_transaction,
        memory_of=lambda agent: _MEMORIES[thread, agent],
    )
    graph = find_app(os.environ.get("MOORLINE_APP")).manager_on(_LOCKS).compile()
    runtime = Runtime(context=RunContext(tools=tools))
    # Without a schema the empty context that the server sends leaves the one that is given here.
    given = {"configurable": {"__pregel_runtime": runtime}}
    return graph.copy({"checkpointer": None, "context_schema": None, "config": given})


@asynccontextmanager
async def _no_transaction() -> AsyncIterator[Connection]:
    raise ToolRefused(_NO_DATABASE, code="no_database")
    yield  # makes it a generator, which a context manager needs
