"""Plays a conversation on one of the graphs, and collects what came of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from moorline import Moorline, Reply, Resume, Settings
from moorline.errors import AgentError, MoorlineError
from moorline.events import TextDelta, TurnFailed, TurnFinished
from moorline.execution import Execution
from moorline_agents.run import AgentDeps
from moorline_checkpoint.turn import TurnRecord

from .conversations import PROCESSES, Step
from .reference import ReferenceManager
from .world import Obedient, World, agents, talking

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from moorline.opening import Opened

FORMS = ("before", "flat")

HANDED_ROUND = "handed over"
KINDS_OF_FAILURE = (HANDED_ROUND, "without answering", "did something else then", "gave an empty answer")
"""Texts that tell the errors of agents apart; the rest of their wording may differ."""

INTERRUPT_ID = re.compile(r"\b[0-9a-f]{32}\b")

EFFECTS = """
SELECT message_id, position, agent, kind, name, intent::text, result::text, turn_no
FROM conversation_effects WHERE device_id = $1 ORDER BY turn_no, message_id, position
"""

SESSION = "SELECT active_agent, session_ttl, last_turn_no FROM conversation_states WHERE device_id = $1"

EDITABLE = """
SELECT coalesce(
    bool_or(agent = $2 AND turn_no >= anew) AND NOT bool_or(turn_no = last AND interrupt IS NOT NULL), false)
FROM (SELECT *, max(turn_no) OVER () AS last FROM conversation_turns WHERE device_id = $1) AS turns
CROSS JOIN (
    SELECT coalesce(max(turn_no), 0) AS anew
    FROM conversation_messages WHERE device_id = $1 AND text ILIKE 'start over%'
) AS messages
"""
"""Whether an agent has answered since the person started over, and nothing waits for an answer: then its history is
edited alike on both graphs."""


class Flat(Moorline):
    """The runtime, with the model of the conversations."""

    def __init__(self, settings: Settings, *, without: str | None, lasting: bool = True) -> None:
        """A runtime that is not `lasting` loses its claims as soon as their leases expire."""
        super().__init__(settings, agents=agents(without=without))
        self._model = cast("Any", Obedient())
        self._lasting = lasting

    @property
    def compiled(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        return self._queue.execution.graph

    def edited(self, agent: str, device: str) -> tuple[RunnableConfig, str, str]:
        """Where an agent's history is: the config, the channel, and the node to write as."""
        return {"configurable": {"thread_id": device}}, f"{agent}.history", f"{agent}.think"

    def forget(self, device: str) -> None:
        self._backend.turns.forget(device)

    async def recover_device(self, device: str) -> list[Reply | None]:
        """Finishes what died on one device."""
        replies = []
        while turn := await self._backend.turns.begin_orphaned(device):
            replies.append(await self._queue._recover(turn))
            if replies[-1] is None:
                break
        return replies

    async def _open(self) -> Opened:
        opened = await super()._open()
        if self._lasting:
            return opened
        made = opened.queue.execution
        mortal = Mortal(**{each.name: getattr(made, each.name) for each in fields(made)})
        return replace(opened, queue=replace(opened.queue, execution=mortal))


class Mortal(Execution):
    """Execution in a process that sends no heartbeats."""

    async def _heartbeats(self, turn: object) -> None:
        pass


class Before(Flat):
    """The runtime, with the graph of before."""

    def edited(self, agent: str, device: str) -> tuple[RunnableConfig, str, str]:
        return {"configurable": {"thread_id": device, "checkpoint_ns": agent}}, "history", "think"

    async def _open(self) -> Opened:
        opened = await super()._open()
        manager = ReferenceManager(
            agents=self._served(),
            saver=opened.backend.saver,
            deps=AgentDeps(model=self._model, tool_rounds=self.settings.tool_rounds, summary="off"),
            start_over=self._start_over,
        )
        made = opened.queue.execution
        execution = replace(made, answers=replace(made.answers, graph=manager.compile()))
        return replace(opened, queue=replace(opened.queue, execution=execution))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The processes of one graph."""

    form: str
    processes: Sequence[Flat]
    mortal: Flat
    pool: asyncpg.Pool[asyncpg.Record]


@asynccontextmanager
async def stage(dsn: str, form: str, *, keep_turns: int) -> AsyncIterator[Stage]:
    """All processes of one graph, open on one database, which has a table `bookings`."""
    settings = Settings(database_url=dsn, keep_turns=keep_turns, tool_rounds=3, pool_max=4, log_level="ERROR")
    kind = {"before": Before, "flat": Flat}[form]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(kind(settings, without=name)) for name in PROCESSES]
        mortal = await stack.enter_async_context(kind(settings, without=None, lasting=False))
        pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=0, max_size=4, reset=_keep))
        yield Stage(form=form, processes=processes, mortal=mortal, pool=pool)


async def _keep(connection: object) -> None:
    """Nothing is set on connections that could stay."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """The result of a conversation."""

    steps: list[Any] = field(default_factory=list)
    """For each step: the answer, who holds the session, and what is in the journal."""
    shown: list[tuple[str, Any]]
    """What every model and every graph agent was shown, in order."""
    did: list[Any]
    transcript: list[Any]


async def play(stage: Stage, seed: int, steps: Sequence[Step]) -> Played:
    """Plays a conversation on a device of its own."""
    player = _Player(stage, f"{stage.form}-{seed}")
    token = talking.set(player.world)
    try:
        came = [await player.take(step) for step in steps]
        return Played(
            steps=came, shown=player.world.shown, did=await player.did(), transcript=await player.transcript()
        )
    finally:
        await player.bury()
        talking.reset(token)


class _Player:
    def __init__(self, stage: Stage, device: str) -> None:
        self.world = World()
        self._stage = stage
        self._device = device
        self._last: tuple[str, str, Mapping[str, Any]] | None = None
        self._messages = 0
        self._interrupt = "none"
        """The last question's ID."""
        self._asked: str | None = None
        """The same, if the last reply was a question."""
        self._dying: list[tuple[asyncio.Event, asyncio.Task[Any]]] = []

    async def take(self, step: Step) -> dict[str, Any]:
        """Takes a step, and returns its result and what is stored after it."""
        process = self._stage.processes[step.process]
        shown = len(self.world.shown)
        self.world.expect(step.faults)
        came: Any = None
        match step.kind:
            case "say" if step.answers and self._asked is not None:
                came = await self._answered(process, step, self._asked)
            case "say":
                came = await self._said(process, step, self._new(step.texts[0], step.values))
            case "again":
                came = await self._said(process, step, self._last or self._new(step.texts[0], step.values))
            case "resume":
                came = await self._answered(process, step, self._interrupt)
            case "die":
                came = await self._die(step)
            case "burst":
                came = await self._burst(process, step)
            case _:
                came = await self._disturbed(process, step)
        pool = self._stage.pool
        return {
            "came": came,
            "session": [list(row.values()) for row in await pool.fetch(SESSION, self._device)],
            "journal": [_entry(row) for row in await pool.fetch(EFFECTS, self._device)],
            "asked": len(self.world.shown) - shown,
        }

    async def _disturbed(self, process: Flat, step: Step) -> Any:
        match step.kind:
            case "recover":
                return [self._told(reply) for reply in await process.recover_device(self._device)]
            case "requeue":
                return await self._requeue(process)
            case "cold":
                for each in self._stage.processes:
                    each.forget(self._device)
            case "expire":
                await self._stage.pool.execute(
                    "UPDATE conversation_states SET last_active_at = last_active_at - interval '2 days',"
                    " locked_at = locked_at - interval '2 days' WHERE device_id = $1",
                    self._device,
                )
            case "edit":
                return await self._edit(process, step)
            case "erase":
                return await process.erase(self._device)
        return None

    async def did(self) -> list[Any]:
        rows = await self._stage.pool.fetch(
            "SELECT what FROM bookings WHERE device_id = $1 ORDER BY number", self._device
        )
        return [[row["what"] for row in rows], self.world.calls]

    async def transcript(self) -> list[Any]:
        entries = await self._stage.processes[0].transcript(self._device)
        return [[entry.texts, _record(entry.record)] for entry in entries]

    async def bury(self) -> None:
        """Lets the turns that died come to their end."""
        for go_on, task in self._dying:
            go_on.set()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    def _new(self, text: str, values: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
        self._messages += 1
        self._last = (text, f"m{self._messages}", values)
        return self._last

    async def _said(self, process: Flat, step: Step, message: tuple[str, str, Mapping[str, Any]]) -> Any:
        text, message_id, values = message
        context = {"device_id": self._device, "message_id": message_id, **values}
        if not step.streamed:
            return await self._outcome(process.run(text, context))
        pieces: list[str] = []
        came: Any = None
        async for event in process.stream(text, context):
            match event:
                case TextDelta():
                    pieces.append(event.text)
                case TurnFinished():
                    came = self._told(event.reply)
                case TurnFailed():
                    came = _failure(event.error)
        return [pieces, came]

    async def _answered(self, process: Flat, step: Step, interrupt_id: str) -> Any:
        answer = Resume(interrupt_id=interrupt_id, value=step.answer)
        return await self._outcome(process.run(answer, {"device_id": self._device}))

    async def _die(self, step: Step) -> Any:
        text, message_id, values = self._new(step.texts[0], step.values)
        context = {"device_id": self._device, "message_id": message_id, **values}
        task = asyncio.create_task(self._outcome(self._stage.mortal.run(text, context)))
        stopped, go_on = asyncio.create_task(self.world.stopped.wait()), self.world.go_on
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            stopped.cancel()
            return task.result()
        self._dying.append((go_on, task))
        await self._stage.pool.execute(
            "UPDATE conversation_states SET lease_until = clock_timestamp() - interval '1 second'"
            " WHERE device_id = $1 AND lease_until IS NOT NULL",
            self._device,
        )
        return "died"

    async def _burst(self, process: Flat, step: Step) -> Any:
        first, *others = [self._new(text, {}) for text in step.texts]
        tasks = [asyncio.create_task(self._merging(process, first))]
        stopped = asyncio.create_task(self.world.stopped.wait())
        await asyncio.wait([tasks[0], stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        running = not tasks[0].done()
        for other in others:
            tasks.append(asyncio.create_task(self._merging(process, other)))
            if running:
                await self._queued(other[1])
            else:
                await tasks[-1]
        self.world.go_on.set()
        came = await asyncio.gather(*tasks)
        # It is random which of the merged messages' calls has run them all.
        return [{**each, "replayed": None} if isinstance(each, dict) else each for each in came]

    async def _merging(self, process: Flat, message: tuple[str, str, Mapping[str, Any]]) -> Any:
        text, message_id, _ = message
        context = {"device_id": self._device, "message_id": message_id, "on_busy": "merge"}
        return await self._outcome(process.run(text, context))

    async def _queued(self, message_id: str) -> None:
        sql = "SELECT FROM conversation_messages WHERE device_id = $1 AND message_id = $2"
        async with asyncio.timeout(30):
            while not await self._stage.pool.fetch(sql, self._device, message_id):  # noqa: ASYNC110 - nobody calls us
                await asyncio.sleep(0.005)

    async def _requeue(self, process: Flat) -> Any:
        rows = await self._stage.pool.fetch(
            "SELECT message_id FROM conversation_messages WHERE device_id = $1 AND status = 'dead' ORDER BY arrival",
            self._device,
        )
        if not rows:
            return None
        return await self._outcome(process.requeue(self._device, rows[0]["message_id"]))

    async def _edit(self, process: Flat, step: Step) -> Any:
        if not await self._stage.pool.fetchval(EDITABLE, self._device, step.agent):
            return "not now"
        config, channel, node = process.edited(step.agent, self._device)
        said = ({"role": "user", "content": step.texts[0]}, {"role": "assistant", "content": f"ok {step.texts[0]}"})
        await process.compiled.aupdate_state(config, {channel: said}, as_node=node)
        return "edited"

    async def _outcome(self, work: Coroutine[Any, Any, Reply | None]) -> Any:
        try:
            return self._told(await work)
        except MoorlineError as error:
            return _failure(error)

    def _told(self, reply: Reply | None) -> Any:
        if reply is None:
            return None
        recovered = [self._told(each) for each in reply.recovered]
        self._asked = None if reply.interrupt is None else reply.interrupt.id
        self._interrupt = self._asked or self._interrupt
        return {
            "text": str(reply),
            "agent": reply.agent,
            "turn_no": reply.turn_no,
            "replayed": reply.replayed,
            "recovered": recovered,
            "handoffs": list(reply.handoffs),
            "interrupt": reply.interrupt and ["asks", reply.interrupt.value],
            "usage": dict(reply.usage) if reply.interrupt is None else None,
        }


def _entry(row: asyncpg.Record) -> list[Any]:
    """Without the IDs of questions, which each graph has of its own."""
    entry = {**row, "intent": INTERRUPT_ID.sub("a question", row["intent"])}
    if row["message_id"].startswith("resume:"):
        entry["message_id"] = "a resume"
    return [*entry.values()]


def _failure(error: MoorlineError) -> list[Any]:
    """What went wrong, and why, but not the wording, which contains IDs."""
    cause = error.__cause__
    if type(error) is AgentError and cause is None:
        return [type(error).__name__, next((kind for kind in KINDS_OF_FAILURE if kind in str(error)), str(error))]
    return [
        type(error).__name__,
        cause and type(cause).__name__,
        str(cause) if isinstance(cause, LookupError) else None,
    ]


def _record(record: TurnRecord) -> dict[str, Any]:
    interrupt = record.interrupt and ["asks", record.interrupt["value"]]
    return {**vars(record), "interrupt": interrupt} | ({"usage": None} if interrupt else {})
