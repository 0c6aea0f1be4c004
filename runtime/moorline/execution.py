"""Executing a claimed turn: the graph runs, then the turn is committed, or released and nothing of its state kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from langgraph.types import Command

from moorline.background import Background
from moorline.errors import InvalidMessage, StaleTurn, StoreUnavailable
from moorline.journal import TurnJournal
from moorline.results import failure_of, is_outer, record_of
from moorline_agents.journal import Journal
from moorline_agents.run import OnText, RunContext
from moorline_agents.tools import Connection, ToolContext
from moorline_agents.unfinished import UnfinishedCall
from moorline_checkpoint.messages import Resume
from moorline_checkpoint.turn import OpenTurn, TurnRecord, running
from moorline_checkpoint.turns import HEARTBEAT, Turns

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Transaction = Callable[[], AbstractAsyncContextManager[Connection]]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Executes turns on one manager graph."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    turns: Turns
    background: Background
    gc_freeze: bool = False

    async def execute(
        self,
        turn: OpenTurn,
        on_text: OnText | None = None,
        *,
        notify: str | None = None,
        overdue: Callable[[], bool] = lambda: False,
    ) -> TurnRecord:
        """Runs and commits a claimed turn. If it raises, the turn was let go, or is as soon as the store is there: the
        device goes on at once, and `turn.effects_kept` says what stands.

        `notify` is the message whose caller is told of a failure. Without one the turn is left to be finished by others
        where the store or a cancellation, and not the turn itself, was to blame.

        Raises `StaleTurn` if another process has taken the turn over, and what went wrong in the run. A cancellation
        that comes while the turn is being committed waits for that; one that comes because the turn is `overdue`
        counts as a failure of its own, any other gives the attempt back.
        """
        try:
            async with self._heartbeat(turn):
                record = await self.run(
                    turn, on_text, TurnJournal(turn=turn, turns=self.turns), lambda: self.turns.block(turn)
                )
            await finished(self.turns.commit(turn, record))
            if self.gc_freeze:
                _spare_the_collector()
        except BaseException as error:
            failure = failure_of(error)
            give_back = is_outer(failure) and not overdue()
            turn.effects_kept = await self.background.release(
                lambda: self._release(turn, failure, notify=notify, give_back=give_back)
            )
            if failure is error:
                raise
            raise failure from error
        return record

    async def run(
        self, turn: OpenTurn, on_text: OnText | None, journal: Journal, transaction: Transaction
    ) -> TurnRecord:
        """What the turn came to on the manager graph; what the run writes joins the turn."""
        tools = ToolContext(device_id=turn.device_id, now=turn.now, values=turn.values, transaction=transaction)
        context = RunContext(tools=tools, on_text=on_text, journal=journal, unfinished=_unfinished(turn))
        with running(turn):
            output = await self.graph.ainvoke(
                await self._input(turn),
                {"configurable": {"thread_id": turn.device_id}},
                context=context,
                # A rerun starts from the last commit and the journal, so nothing in between has to be kept.
                durability="exit",
                version="v2",
            )
        return record_of(turn, context.progress, output.interrupts)

    async def _release(
        self, turn: OpenTurn, failure: BaseException, *, notify: str | None, give_back: bool
    ) -> bool | None:
        """Whether anything stands that the turn's tools did; None where nobody is told."""
        if notify is None and isinstance(failure, StoreUnavailable | asyncio.CancelledError):
            # What cuts every attempt short must not be tried for ever.
            await self.turns.abandon(turn, give_back=isinstance(failure, StoreUnavailable))
            return None
        kept = await self.turns.release(
            turn,
            notify=notify,
            failure=type(failure).__name__,
            give_back=give_back,
            # Begin found that it answers the last turn's interrupt, but an agent was changed since.
            forget=turn.resume is not None and isinstance(failure, InvalidMessage),
        )
        # An erasure takes away what is on record of a turn, not what its tools did.
        return kept or (isinstance(failure, StaleTurn) and turn.journaled)

    async def _input(self, turn: OpenTurn) -> Any:
        if turn.resume is None:
            return {"texts": [message.text for message in turn.messages]}
        interrupt_id = turn.resume.interrupt_id
        asked = await self.graph.aget_state({"configurable": {"thread_id": turn.device_id}})
        # The agent itself has to wait for it too: an agent that was changed since would take itself for finished.
        waiting = [
            await self.graph.aget_state({"configurable": {"thread_id": turn.device_id, "checkpoint_ns": task.name}})
            if task.state
            else task
            for task in asked.tasks
        ]
        if not any(interrupt.id == interrupt_id for snapshot in waiting for interrupt in snapshot.interrupts):
            raise stale_resume(turn.resume)
        return Command(resume={interrupt_id: turn.resume.value})

    @asynccontextmanager
    async def _heartbeat(self, turn: OpenTurn) -> AsyncIterator[None]:
        """Renews the lease while the block runs. A lease that is lost all the same is found out by the commit."""
        beating = asyncio.create_task(self._beat(turn))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _beat(self, turn: OpenTurn) -> None:
        standing = True
        while standing:
            await asyncio.sleep(HEARTBEAT)
            with suppress(StoreUnavailable):
                standing = await self.turns.heartbeat(turn)


def _unfinished(turn: OpenTurn) -> tuple[UnfinishedCall, ...]:
    """What earlier messages did, as the agents are told it."""
    return tuple(
        UnfinishedCall(agent=effect.agent, tool=effect.name, arguments=effect.intent, result=effect.result)
        for effect in turn.unfinished
    )


@cache
def _spare_the_collector() -> None:
    """Once a process, when all that a turn needs has been imported: takes what is alive then out of the garbage
    collector's sight. With many turns in flight it would go through all of that again and again, a quarter of
    a turn's time. What is not part of a reference cycle is freed as ever."""
    gc.freeze()


def stale_resume(resume: Resume) -> InvalidMessage:
    """What is raised for an answer to an interrupt that waits for none."""
    return InvalidMessage(
        f"No interrupt {resume.interrupt_id!r} waits for an answer on this device: it was answered, or the "
        "conversation has moved on. Send a message instead."
    )


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that a cancellation must not cut in two: it comes through after the work is done."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # looked at, so that nobody warns of it
        raise cancelled
    return task.result()
