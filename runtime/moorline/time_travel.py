"""Time travel: what a conversation's state is and was, as LangGraph shows it, and going back in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorline.errors import SessionBusy, UsageError, only_ours
from moorline.manager import Manager
from moorline.part import Part
from moorline_agents.run import AgentDeps
from moorline_checkpoint.rewinding import Rewound, conversation_of, kept_turns, rewind

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import StateSnapshot

    from moorline_checkpoint.saver import DeviceCheckpointer

PAUSE = 0.1
"""Seconds after which a rewinding that has to wait is tried again."""


@dataclass(frozen=True, kw_only=True)
class TurnState:
    """The state that a turn left."""

    turn_no: int
    state: StateSnapshot
    """As LangGraph's `aget_state` gives it."""


class TimeTravel(Part):
    """Time travel of a `Moorline`."""

    @property
    def manager_graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled manager graph, for what LangGraph's own tools show of it: pictures, schemas, and
        `await m.manager_graph.aget_state({"configurable": {"thread_id": device_id}})` of a device that is not linked to
        another. To run it, or to write into it, is none of theirs: that goes past the turns."""
        return self._queue.execution.graph

    def manager_on(self, saver: DeviceCheckpointer) -> Manager:
        """The manager of its agents, whose sessions `saver` keeps. It need not be open."""
        settings, texts = self.settings, self._texts
        deps = AgentDeps(
            model=self._model,
            tool_rounds=settings.tool_rounds,
            tool_timeout=settings.tool_timeout,
            prompt_tokens=settings.prompt_tokens,
            summary=self._summary,
            yes_no=(texts.yes, texts.no),
        )
        return Manager(agents=self._served(), saver=saver, deps=deps, start_over=self._start_over, router=self._router)

    async def state(self, device_id: str, *, agent: str | None = None) -> StateSnapshot:
        """The state of the device's conversation after its last committed turn: LangGraph's `aget_state`. With the name
        of a `GraphAgent`, the state of its own graph. Raises `UsageError` for any other agent."""
        with only_ours():
            namespace = self._namespace(agent)
            conversation = await self._conversation(device_id)
            return await self.manager_graph.aget_state(_state_of(conversation, namespace))

    async def history(self, device_id: str, *, agent: str | None = None) -> AsyncIterator[TurnState]:
        """The states that the kept turns of the device's conversation left, newest first. At least the last
        `MOORLINE_KEEP_TURNS` turns are kept; a turn from which nothing is remembered has no state.

        With the name of a `GraphAgent`, the states of its own graph, which are as before after turns that others
        answered; none of turns before it was first asked. Raises `UsageError` for any other agent.
        """
        with only_ours():
            namespace = self._namespace(agent)
            conversation = await self._conversation(device_id)
            kept = await kept_turns(
                self._backend.saver.database,
                conversation,
                keep_turns=self.settings.keep_turns,
                namespace=namespace,
            )
        for turn in kept:
            with only_ours():
                state = await self.manager_graph.aget_state(_state_of(conversation, namespace, turn.checkpoint_id))
            yield TurnState(turn_no=turn.turn_no, state=state)

    async def rewind(self, device_id: str, turn_no: int, *, timeout: float = 60.0) -> Rewound:
        """The device's conversation goes on as after the turn with this number; 0: as before its first.

        What its agents remember, and who holds the session, is as it was then; a question that waits is closed. Later
        turns stay in the transcript with `rewound_at`, and no agent and no router is told of them. What tools did in
        them is named in the result and stands, and so do facts (`context.memory`). Turns that follow have new numbers.

        It comes between turns, after those of messages that wait already; called again, it gives the same result.
        Raises `TurnNotKept` for a turn that stopped to ask, that was rewound itself, or whose state is no longer kept,
        and `SessionBusy` if turns have been open for `timeout` seconds; then nothing is changed.
        """
        with only_ours():
            conversation = await self._conversation(device_id)
            database, turns = self._backend.saver.database, self._backend.turns
            try:
                async with asyncio.timeout(timeout):
                    while True:
                        done = await rewind(database, conversation, turn_no, keep_turns=self.settings.keep_turns)
                        if done is not None:
                            turns.forget(conversation)
                            return done
                        await asyncio.sleep(PAUSE)
            except TimeoutError:
                raise SessionBusy(PAUSE) from None

    async def _conversation(self, device_id: str) -> str:
        return await conversation_of(self._backend.saver.database, await self._device(device_id))

    def _namespace(self, agent: str | None) -> str:
        """Where the state of an agent's own graph is; that of the manager graph if none is named."""
        graphs = [each.name for each in self._served() if each.entry == each.name]
        if agent is not None and agent not in graphs:
            raise UsageError(
                f"No agent named {agent!r} has a graph of its own; there are: {', '.join(graphs) or 'none'}. What any "
                "other agent remembers is in the channel NAME.history of the manager graph's state."
            )
        return agent or ""


def _state_of(conversation: str, namespace: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """What LangGraph is asked for: the state at a checkpoint, by default the last one."""
    asked = {"thread_id": conversation, "checkpoint_ns": namespace}
    return {"configurable": asked if checkpoint_id is None else {**asked, "checkpoint_id": checkpoint_id}}
