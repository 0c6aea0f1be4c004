"""Executing a claimed turn: the graph runs, then the turn is committed, or released without keeping its state."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from moorline.answers import Answers
from moorline.background import Background
from moorline.errors import InvalidMessage, NothingWaits, StaleTurn, StateDamaged, StoreUnavailable
from moorline.files import NOTHING, Brought, notes_of
from moorline.journal import TurnJournal
from moorline.past_turns import PastTurns
from moorline.results import failure_of, is_outer, record_of
from moorline.stops import Stops
from moorline_agents.conversation import Conversation, NoConversation
from moorline_agents.files import received
from moorline_agents.journal import Journal
from moorline_agents.messages import Usage
from moorline_agents.questions import Given
from moorline_agents.run import Progress, RunContext
from moorline_agents.stopping import Stop
from moorline_agents.telling import SILENCE, Telling
from moorline_agents.tools import Connection, ToolContext
from moorline_agents.tracing import UNTRACED, Tracing
from moorline_agents.unfinished import UnfinishedCall
from moorline_checkpoint.files import FileContent, Files
from moorline_checkpoint.messages import Resume
from moorline_checkpoint.turn import OpenTurn, TurnRecord, running
from moorline_checkpoint.turns import HEARTBEAT, Turns

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.store.base import BaseStore

COLLECT_AFTER = 50_000
"""The objects made since the last collection after which a tuned process collects; Python's own figure is 700 to
2,000. A turn leaves no cycles behind, but a hundred turns in flight have more than 10,000 objects."""

Transaction = Callable[[], AbstractAsyncContextManager[Connection]]


class _Later:
    """Runs something beside the block if that takes longer than some seconds, and cancels it when the block ends.

    Most turns end before their first heartbeat, so the task for it is made only then.
    """

    def __init__(self, seconds: float, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._seconds, self._start = seconds, start
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._begin)

    async def __aexit__(self, *raised: object) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self) -> None:
        # In a context of its own: what runs beside a turn is no part of its trace.
        self._task = asyncio.create_task(self._start(), context=Context())


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Executes turns on one manager graph."""

    memory: Callable[[OpenTurn, str], BaseStore]
    """The facts that an agent keeps of the person whose turn it is."""
    turns: Turns
    files: Files
    stops: Stops
    background: Background
    answers: Answers
    tune_gc: bool = False

    @property
    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The manager graph."""
        return self.answers.graph

    async def execute(
        self,
        turn: OpenTurn,
        telling: Telling = SILENCE,
        *,
        tracing: Tracing = UNTRACED,
        notify: str | None = None,
        overdue: Callable[[], bool] = lambda: False,
        until: float = math.inf,
        brought: Brought = NOTHING,
    ) -> TurnRecord:
        """Runs and commits a claimed turn. If this raises, the turn was released, or will be as soon as the store is
        back: the device is free at once, and `turn.effects_kept` says whether effects stand.

        `brought` are files that came with the message: they are kept first, if they are not yet in this conversation.
        `notify` is the message whose caller learns of a failure, and waits `until` then. Without it, a turn that failed
        because of the store or a cancellation is left for others to finish.

        Raises `StaleTurn` if another process has taken the turn over, and whatever went wrong in the run. A
        cancellation while the commit is on its way waits until it is back. One that comes because the turn is `overdue`
        counts as a failed attempt of the message; any other does not.
        """
        journal = TurnJournal(turn=turn, turns=self.turns)
        progress = Progress(usage=Usage.of_json(turn.spent, None))
        try:
            # If the lease is lost all the same, the commit finds out.
            async with _Later(HEARTBEAT, lambda: self._heartbeats(turn)):
                if brought.contents and brought.kept_in != turn.device_id:  # it has joined another one meanwhile
                    await self.files.keep(turn.device_id, brought.contents)
                with self.stops.running(turn) as stop:
                    transaction = partial(self.turns.block, turn)
                    record = await self.run(
                        turn,
                        telling,
                        journal,
                        transaction,
                        progress=progress,
                        stop=stop,
                        tracing=tracing,
                        conversation=PastTurns(turn, turns=self.turns, start_over=self.answers.start_over),
                        until=until,
                        brought=brought,
                    )
            if record.interrupt is not None:
                record = replace(record, run=journal.run_so_far())
            await self.turns.commit(turn, record)
            if self.tune_gc:
                _tune_collector()
        except BaseException as error:
            failure = failure_of(error)
            give_back = is_outer(failure) and not overdue()
            turn.effects_kept = await self.background.release(
                lambda: self._release(turn, failure, progress.usage, notify=notify, give_back=give_back)
            )
            if failure is error:
                raise
            raise failure from error
        return record

    async def run(
        self,
        turn: OpenTurn,
        telling: Telling,
        journal: Journal,
        transaction: Transaction,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
        tracing: Tracing = UNTRACED,
        conversation: Conversation = NoConversation(),  # noqa: B008 - has no state
        until: float = math.inf,
        brought: Brought = NOTHING,
    ) -> TurnRecord:
        """Runs the manager graph and returns the record of the turn; what the run writes belongs to the turn."""
        read_files = partial(self._read, turn.device_id, brought.contents)
        tools = ToolContext(
            device_id=turn.device_id,
            now=turn.now,
            values=turn.values,
            transaction=transaction,
            memory_of=partial(self.memory, turn),
            files=received(notes_of(turn.messages), read_files),
        )
        context = RunContext(
            tools=tools,
            telling=telling,
            tracing=tracing,
            stop=stop or Stop(),
            journal=journal,
            read_files=read_files,
            unfinished=_unfinished(turn),
            progress=progress or Progress(),
            conversation=conversation,
            until=until,
        )
        with running(turn):
            begins = await self.answers.beginning(turn, context)
            context.progress.reply = begins.reply
            if turn.resume is not None and begins.given is None:
                tools.answers.append(Given(answer=turn.resume.value, by=turn.resume.by))
            output = await self.graph.ainvoke(
                begins.input,
                {"configurable": {"thread_id": turn.device_id}},
                context=begins.of(context),
                output_keys=(),  # or LangGraph reads the whole state after each step
                # A rerun starts from the last commit and the journal, so no step in between has to be stored.
                durability="exit",
                version="v2",
            )
        return record_of(turn, context.progress, output.interrupts, choose=self.answers.texts.choose)

    async def _release(
        self, turn: OpenTurn, failure: BaseException, usage: Usage, *, notify: str | None, give_back: bool
    ) -> bool | None:
        """Whether any effects of the turn stand; None if there is no caller to tell."""
        if notify is None and isinstance(failure, StoreUnavailable | asyncio.CancelledError):
            # A turn whose every attempt is cut short must not be retried for ever.
            await self.turns.abandon(turn, give_back=isinstance(failure, StoreUnavailable))
            return None
        kept = await self.turns.release(
            turn,
            notify=notify,
            failure=type(failure).__name__,
            give_back=give_back,
            forget=_as_if_never_come(turn, failure, heard=notify is not None),
            spent=usage.as_json(None),
        )
        # An erasure removes the record of a turn's effects, not the effects themselves.
        return kept or (isinstance(failure, StaleTurn) and turn.journaled)

    async def _read(
        self, conversation: str, at_hand: Sequence[FileContent], hashes: Sequence[str]
    ) -> Mapping[str, bytes]:
        """The bytes of files: of those that just came, and of others as the conversation keeps them."""
        found = {content.ref.hash: content.data for content in at_hand}
        missing = [each for each in hashes if each not in found]
        if missing:
            found |= await self.files.read(conversation, missing)
        return found

    async def _heartbeats(self, turn: OpenTurn) -> None:
        """Renews the lease again and again."""
        standing = True
        while standing:
            with suppress(StoreUnavailable):
                standing = await self.turns.heartbeat(turn)
            await asyncio.sleep(HEARTBEAT)


def _unfinished(turn: OpenTurn) -> tuple[UnfinishedCall, ...]:
    """The effects of earlier, unfinished messages, in the form that agents are shown."""
    return tuple(
        UnfinishedCall(agent=effect.agent, tool=effect.name, arguments=effect.intent, result=effect.result)
        for effect in turn.unfinished
    )


def _as_if_never_come(turn: OpenTurn, failure: BaseException, *, heard: bool) -> bool:
    """Whether nothing is to stay of the messages of a turn that failed before any of it ran: Begin would have refused
    it, had Begin known that an agent has changed since it asked, or that the device's rows are damaged."""
    if isinstance(failure, InvalidMessage):
        return turn.resume is not None
    return heard and isinstance(failure, StateDamaged) and turn.attempts == 1 and not turn.journaled


@cache
def _tune_collector() -> None:
    """Spares what is alive, once per process, when all that a turn needs has been imported, and collects what came
    since less often. With many turns in flight the collector would go through everything again and again, which takes
    a quarter of a turn's time. Objects outside reference cycles are freed as before."""
    gc.freeze()
    youngest, *older = gc.get_threshold()
    gc.set_threshold(max(youngest, COLLECT_AFTER), *older)


def stale_resume(resume: Resume) -> NothingWaits:
    """The error for a `Resume` whose interrupt is not waiting for an answer."""
    return NothingWaits(
        f"No interrupt {resume.interrupt_id!r} is waiting for an answer on this device: it was answered, or the "
        "conversation has moved on. Send a message instead."
    )
