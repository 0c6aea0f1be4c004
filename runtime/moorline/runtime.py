"""The runtime as its users see it: `Moorline`, opened on a database with its agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from moorline.backend import Backend
from moorline.background import Background
from moorline.closable import closables
from moorline.context import Call, Resume, TurnContext, check_call, stored_device_id, stored_message_id
from moorline.defaults import server_model, shipped_agents, summary_model
from moorline.errors import MoorlineError, StoreUnavailable, UsageError, only_ours
from moorline.events import Event, TurnFailed, TurnFinished
from moorline.files import Said
from moorline.graph_view import ManagerGraph, graph_of
from moorline.kept_files import KeptFiles
from moorline.locks import Locks
from moorline.manager import AgentProtocol, StartOver, require_agents
from moorline.observers import Observer
from moorline.opening import Opened, open_parts
from moorline.people import People
from moorline.reply import Interrupt, Reply
from moorline.results import usage_of
from moorline.router import Router
from moorline.settings import Settings, load_settings
from moorline.stops import Stops
from moorline.telling import Hear, TurnTelling, telling
from moorline.texts import Texts
from moorline.time_travel import TimeTravel
from moorline.tracing import UNTRACED, Tracing
from moorline.turn_queue import TurnQueue
from moorline.upkeep import Upkeep
from moorline_agents.model import require_model
from moorline_checkpoint.pools import PoolUse
from moorline_checkpoint.queue import DeadLetter
from moorline_checkpoint.replica import AsOf
from moorline_checkpoint.revocations import Revocations
from moorline_checkpoint.transcripts import Transcript
from moorline_migrations.components import CORE, Migrations, distinct
from moorline_migrations.runner import check

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from openai import AsyncOpenAI

    from moorline_agents.model import Model
    from moorline_checkpoint.sessions import Session


class Moorline(Locks, People, KeptFiles, TimeTravel, Upkeep):
    """The explicit form of `run_manager`: `async with Moorline(settings, agents=[…]) as m: await m.run(…)`.

    One object serves any number of devices at once. Everything about a conversation is in the database: a second
    process, or this one after a restart, continues where the last committed turn ended.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agents: Sequence[AgentProtocol] | None = None,
        model: Model | None = None,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None,
        on_recovered: Callable[[str, Reply], None] | None = None,
        router: Router = Router(),  # noqa: B008 - frozen
        texts: Texts = Texts(),  # noqa: B008 - frozen
        serde: SerializerProtocol | None = None,
        observers: Sequence[Observer] = (),
        tracing: Tracing = UNTRACED,
    ) -> None:
        """`agents` replace those that ship. `model` answers for the router, and for the agents that have none of their
        own, instead of the one that the settings describe; `client` replaces only that one's client. `router` says how
        an agent is picked for a device that none holds. `texts` are what Moorline itself says to a person. `serde`
        replaces the checkpointer's serializer, to rebuild types in the state of graphs that their schemas do not name
        (`StrictSerializer([Order])`), or to encrypt what they store.

        `on_recovered(device_id, reply)` gets the reply of each crashed turn that this runtime finishes; without it,
        they come in `Reply.recovered`. The callers of these turns are gone, so somebody has to send their replies.

        Each of `observers` is called with every event of every turn that runs here, recovered ones too, in order: an
        async one on this loop, which it must not block, any other in a thread of its own. One that raises or falls
        behind harms no turn; it is logged once, and events that it has no time for are dropped.

        `tracing` follows what runs inside what; `moorline.telemetry.Tracing` makes spans of it.
        Raises `TypeError` or `ValueError` for agents or a model that could never work.
        """
        if agents is not None:
            require_agents(agents)
        if model is not None:
            require_model(model, "model")
        self.settings = settings or load_settings()
        self._agents = agents
        self._model = server_model(self.settings, client=client) if model is None else model
        self._summary = summary_model(self.settings, client=client, model=model)
        self._on_recovered = on_recovered
        self._serde = serde
        self._observers = tuple(observers)
        self._tracing = tracing
        self._router = router
        self._texts = texts
        self._start_over = StartOver(words=self.settings.start_over, reply=texts.start_over)
        self._background = Background()
        self._entered = False
        self._opened: Opened | None = None

    async def __aenter__(self) -> Self:
        """Raises `ConfigurationError`, `SchemaMismatch` or `StoreUnavailable` if turns could not run, and `UsageError`
        if it is already open. Once closed, it may be opened again."""
        if self._entered:
            raise UsageError(
                "This Moorline is already open. One object serves any number of devices at once: use the open one, or "
                "make another."
            )
        self._entered = True
        try:
            self._opened = await self._open()
        except BaseException:
            self._entered = False
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for turns whose callers have gone, then closes the models and the sources of tools, including the
        agents' own, and the connections."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        async with AsyncExitStack() as closing:
            closing.callback(setattr, self, "_entered", False)
            closing.push_async_callback(opened.backend.close)
            closing.push_async_callback(opened.pool_watch.close)
            closing.push_async_callback(opened.observers.close)
            for each in closables(self._agents or (), self._model, self._summary, self._router.model):
                closing.push_async_callback(each.aclose)
            await self._background.finish()

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not closed since."""
        return self._entered

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who gets its events."""
        return self._observers

    @property
    def is_traced(self) -> bool:
        """Whether somebody follows what runs inside what."""
        return self._tracing is not UNTRACED

    def watch(self, *observers: Observer, tracing: Tracing | None = None) -> None:
        """Adds observers, and follows it with `tracing` from now on, before it is opened; for what serves a `Moorline`
        that somebody else made. Raises `UsageError` if it is open."""
        if self._entered:
            raise UsageError("This Moorline is already open, and what watches it is fixed.")
        self._observers += observers
        self._tracing = tracing or self._tracing

    async def run(self, message: Said | Resume, context: Mapping[str, Any] | TurnContext) -> Reply:
        """One message in, one reply out, in one turn of the device.

        Turns of a device run one after another, whatever processes they arrive in. A `message_id` that was answered
        before gets the stored reply.

        A message may be a list of texts and files: `["Is this rash bad?", Image(photo)]`. What comes as an address is
        fetched before the turn begins, unless the message came before; `FileUnavailable` says that it could not be.

        `InvalidMessage`, `InvalidContext` and `InvalidDeviceID` are raised before anything is stored. After any other
        error, the agents remember nothing of the turn, but the effects of its tools stand if the error's `effects_kept`
        is true: call again with its `message_id`, and the turn is finished without doing them twice. `retryable` says
        whether that may help, as it may after `SessionBusy`, `TurnTimeout`, `AgentError`, `StaleTurn` and
        `StoreUnavailable`; after the last the turn may even have been committed, and then its reply is returned. Until
        the turn is finished, the agent whose tools had effects is told about them in the turns that follow.
        """
        return await self._answer(message, context, None)

    async def stream(
        self, message: Said | Resume, context: Mapping[str, Any] | TurnContext
    ) -> AsyncGenerator[Event, None]:
        """`run` as a stream: the events of the call's turn, the last of which is `TurnFinished` or `TurnFailed`. What
        `run` would raise is told in `TurnFailed`, never raised.

        Nothing is held back, so text that turns out not to be part of the reply is taken back with `TextWithdrawn`. The
        deltas since the last withdrawal are always exactly the reply. A message that was answered before is told as
        `TurnStarted(replayed=True)`, its whole reply, and `TurnFinished`.
        """
        events: asyncio.Queue[Event] = asyncio.Queue()
        turn = asyncio.create_task(self._answer(message, context, events.put_nowait))
        try:
            while not isinstance(event := await events.get(), TurnFinished | TurnFailed):
                yield event
            await asyncio.wait([turn])
            yield event
        finally:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)

    async def recover(
        self,
        on_reply: Callable[[str, Reply], None] | None = None,
        on_failure: Callable[[str, Exception], None] | None = None,
    ) -> int:
        """Finishes the turns that crashed processes left behind, on all devices, and returns how many there were.

        Each reply goes to `on_reply(device_id, reply)` as soon as it is there, and to `on_recovered`. If a device
        fails, that is logged, `on_failure(device_id, error)` gets the error, and the next device follows. Only if the
        database cannot be reached at all, `StoreUnavailable` is raised.
        """
        with only_ours():
            return await self._queue.recover(on_reply, on_failure)

    async def dead_letters(self) -> AsOf[DeadLetter]:
        """Messages that were set aside because they failed too often, the latest first. May come from a replica, and is
        at most a second old then and otherwise."""
        with only_ours():
            letters, as_of = await self._backend.read(lambda turns: turns.dead_letters(), question="dead letters")
            return AsOf(letters, as_of=as_of)

    async def requeue(self, device_id: str, message_id: str | int) -> Reply | None:
        """Puts a message that was set aside back into its device's queue, behind those that wait, and returns its
        reply; None if there is no such message."""
        with only_ours():
            device_id, message_id = await self._device(device_id), stored_message_id(message_id)
            message = await self._backend.turns.requeue(device_id, message_id)
        if message is None:
            return None
        settings = self.settings
        return await self._queue.answer(
            Call(message=message, timeout=settings.turn_timeout, on_cancel=settings.on_cancel)
        )

    async def session(self, device_id: str) -> Session | None:
        """The device's session: which agent holds it, since when and until when; None if no agent does."""
        with only_ours():
            return await self._backend.saver.get_session(await self._device(device_id))

    async def transcript(
        self, device_id: str, *, before: int | None = None, limit: int | None = None, own: bool = False
    ) -> Transcript:
        """The committed turns of the device's conversation with their messages, oldest first: all of them, or the last
        `limit` of those before the turn number `before`. The text of a `Resume` is its value. With `own` those of the
        conversation that a linked device had before, unless others share that by now. If a replica answers
        (`MOORLINE_REPLICA_URL`), `as_of` of the transcript is the moment up to which it has all turns."""
        with only_ours():
            device_id = await self._device(device_id)
            entries, as_of = await self._backend.read(
                lambda turns: turns.transcript(device_id, before=before, limit=limit, own=own)
            )
            shown = (replace(each, record=replace(each.record, usage=usage_of(each.record))) for each in entries)
            return Transcript(shown, as_of=as_of)

    async def pending(self, device_id: str) -> Interrupt | None:
        """The question that the device's last turn asked, if it still waits for an answer."""
        with only_ours():
            found = await self._backend.turns.pending(await self._device(device_id))
            return None if found is None else Interrupt(**found)

    async def cancel(self, device_id: str) -> bool:
        """Closes the question that waits, as the person's next message would: the agent is told that it was not
        answered, and a `Resume` for it gets `InvalidMessage`. Returns False if there is none, or if a turn is open,
        which answers it or closes it unless it fails."""
        with only_ours():
            return await self._backend.turns.cancel(await self._device(device_id))

    async def stop(self, device_id: str, message_id: str) -> bool:
        """Stops the turn that answers the message, in whatever process it runs: there it is noticed within about a
        second, here at once.

        No further model and no further tool is called. A model that is being asked is given up; a tool that runs is
        finished, and what tools have done stands. The turn is committed with the text that was told so far, or with
        `Texts.stopped`; calls that were not made are closed in the agent's history. The session stays as it is. A
        message that still waits is answered with `Texts.stopped` when its turn comes, and a turn that has to run again
        stays stopped.

        Returns False, and does nothing, if the device has no such message, or it has been answered or has failed.
        """
        with only_ours():
            return await self._stops.stop(await self._device(device_id), stored_message_id(message_id))

    async def device_tag(self, device_id: str) -> str:
        """The tag that stands for the device in logs and errors: twelve hexadecimal digits, the same in every process
        that uses this database or has the same `MOORLINE_LOG_KEY`."""
        with only_ours():
            return await self._backend.saver.device_tag(await self._device(device_id))

    async def revoke(self, device_id: str) -> None:
        """Refuses all device tokens that were issued to the device until now, in every process. Its conversation
        stays."""
        with only_ours():
            await self._backend.revocations.revoke(await self._device(device_id))

    @property
    def revocations(self) -> Revocations:
        """Which device tokens the database refuses, and the key that it keeps for them."""
        return self._backend.revocations

    async def pool_use(self) -> PoolUse:
        """What its connections in this process are doing, those of synchronous calls' thread too."""
        with only_ours():
            return self._backend.saver.database.pool_use()

    async def known(self, device_id: str) -> bool:
        """Whether anything is stored of a conversation with the device."""
        with only_ours():
            return await self._backend.turns.known(await self._device(device_id))

    async def check(self) -> None:
        """Raises what would keep a turn from running now: `StoreUnavailable`, `SchemaMismatch`, or `UsageError` if it
        is not open or is being closed."""
        with only_ours():
            async with self._backend.saver.database.connection() as connection:
                await check(connection, schema=self.settings.schema_name, components=self.components)

    @property
    def components(self) -> tuple[Migrations, ...]:
        """The migrations of the core and of the agents, which the database needs before this object is opened.

        Raises `ConfigurationError` if two agents bring different migrations under one name.
        """
        return distinct((CORE, *(agent.migrations for agent in self._served() if agent.migrations is not None)))

    @property
    def graph(self) -> ManagerGraph:
        """The manager graph of its agents, which a notebook shows as a picture."""
        return graph_of(self._served())

    def _served(self) -> Sequence[AgentProtocol]:
        return self._agents if self._agents is not None else shipped_agents(self.settings)

    async def _open(self) -> Opened:
        return await open_parts(
            self.settings,
            agents=self._served(),
            components=self.components,
            model=self._model,
            start_over=self._start_over,
            manager_on=self.manager_on,
            texts=self._texts,
            serde=self._serde,
            observers=self._observers,
            tracing=self._tracing,
            background=self._background,
            on_recovered=self._on_recovered,
        )

    @property
    def _queue(self) -> TurnQueue:
        return self._require_open().queue

    @property
    def _stops(self) -> Stops:
        return self._queue.execution.stops

    @property
    def _backend(self) -> Backend:
        return self._require_open().backend

    def _require_open(self) -> Opened:
        if self._opened is None:
            raise UsageError("This Moorline is not open. Use it inside `async with Moorline(…) as moorline:`.")
        return self._opened

    async def _answer(
        self, message: Said | Resume, context: Mapping[str, Any] | TurnContext, hear: Hear | None
    ) -> Reply:
        try:
            with only_ours():
                call = await self._call(message, context)
        except MoorlineError as error:
            self._telling(hear, "").fail(error)
            raise
        return await self._queue.answer(call, self._telling(hear, call.message.device_id))

    def _telling(self, hear: Hear | None, device_id: str) -> TurnTelling:
        return telling({} if self._opened is None else self._opened.observers.hears, device_id, hear)

    async def _call(self, message: Said | Resume, context: Mapping[str, Any] | TurnContext) -> Call:
        """Raises for a message that cannot be answered; nothing has been stored by then."""
        backend = self._backend
        call = check_call(message, context, self.settings)
        with only_ours(), suppress(StoreUnavailable):  # whether it answers at all, Begin finds out
            device_id = await backend.key.spelled(call.message.device_id)
            if device_id != call.message.device_id:
                call = replace(call, message=replace(call.message, device_id=device_id))
        return await self._require_open().receiving.receive(call) if call.files else call

    async def _device(self, device_id: str) -> str:
        return await self._backend.key.spelled(stored_device_id(device_id, self.settings))
