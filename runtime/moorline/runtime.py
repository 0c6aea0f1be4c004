"""The runtime: takes a message, finds or makes its turn, and gives back the reply.

One turn is claim, run, commit. Claiming and committing are `moorline_checkpoint.turns`; running is the manager
graph; this module joins them and decides what a failure means for the message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4
from weakref import WeakValueDictionary

from langgraph.types import Command

from moorline.context import Request, Resume, TurnContext, check_request
from moorline.shipped import chat_model, shipped_agents
from moorline.errors import AgentError, InvalidMessage, MoorlineError, SessionBusy, StoreUnavailable, TurnTimeout
from moorline.manager import Compilable, Manager, StartOver, turn_input
from moorline.outcome import failure_of, is_outer, record_of, reply_of
from moorline.reply import Reply
from moorline.settings import Settings, load_settings
from moorline.store import open_store
from moorline.streaming import Event, TextDelta, TurnDone, TurnFailed
from moorline_agents.agent import RunContext, Surroundings
from moorline_agents.tools import ToolContext
from moorline_checkpoint.devices import hash_device_id, require_device_id
from moorline_checkpoint.turn import OpenTurn, TurnRecord, running
from moorline_checkpoint.turns import HEARTBEAT, Busy, Dead, Replayed, TranscriptEntry

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from moorline_checkpoint.sessions import Session

logger = logging.getLogger("moorline.runtime")

POLL = 0.1
"""Seconds between two askings of a message that waits for its device."""


class Moorline:
    """The explicit form of `run_manager`: `async with Moorline(settings, agents=[…]) as m: await m.run(…)`.

    One object serves any number of devices at once. Everything it knows of a conversation is in the database:
    a second process, or this one started again, goes on where the last committed turn ended.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agents: Sequence[Compilable] | None = None,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None,
    ) -> None:
        """`client` replaces the one that the settings describe; `agents` the ones that ship."""
        self.settings = settings or load_settings()
        self._agents = agents
        self._model = chat_model(self.settings, client=client)
        self._lanes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __aenter__(self) -> Self:
        """Raises `ConfigurationError`, `SchemaMismatch` or `StoreUnavailable` when turns could not run."""
        self._store = await open_store(self.settings)
        try:
            self._graph = self._manager().compile()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back. Nothing that was acknowledged depends on it."""
        await self._model.aclose()
        await self._store.close()

    async def run(self, message: str | Resume, context: Mapping[str, Any] | TurnContext) -> Reply:
        """One message in, one reply out, in one turn of the device.

        Turns of a device run one after another. A `message_id` that was answered before gets the stored reply.
        When an error is raised, nothing of the turn was kept and the same call may be made again: `InvalidMessage`,
        `InvalidContext` and `InvalidDeviceID` before anything is stored, then `SessionBusy`, `TurnTimeout`,
        `AgentError`, `StaleTurn`, `StoreUnavailable`.
        """
        return await self._answer(check_request(message, context, self.settings), say=None)

    async def stream(
        self, message: str | Resume, context: Mapping[str, Any] | TurnContext
    ) -> AsyncIterator[Event]:
        """`run` as a stream: `TextDelta` while the model writes, at last `TurnDone` or `TurnFailed`."""
        request = check_request(message, context, self.settings)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        turn = asyncio.create_task(self._answer(request, say=pieces.put_nowait))
        turn.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield TextDelta(text=piece)
            try:
                yield TurnDone(reply=await turn)
            except MoorlineError as error:
                yield TurnFailed(error=error)
        finally:
            turn.cancel()
            await asyncio.wait([turn])

    async def session(self, device_id: str) -> Session | None:
        """Who holds the device's session, since when and until when; None if nobody does."""
        return await self._store.saver.get_session(self._device(device_id))

    async def transcript(self, device_id: str) -> list[TranscriptEntry]:
        """All committed turns of the device with their messages, oldest first."""
        return await self._store.turns.transcript(self._device(device_id))

    async def erase(self, device_id: str) -> None:
        """Removes everything of the device, for good; a turn that is running becomes stale."""
        await self._store.saver.adelete_thread(self._device(device_id))

    def _manager(self) -> Manager:
        return Manager(
            agents=self._agents if self._agents is not None else shipped_agents(self.settings),
            saver=self._store.saver,
            surroundings=Surroundings(model=self._model, tool_rounds=self.settings.tool_rounds),
            start_over=StartOver(words=self.settings.start_over),
        )

    def _device(self, device_id: str) -> str:
        return require_device_id(device_id, uuid_only=self.settings.device_ids == "uuid")

    async def _answer(self, request: Request, *, say: Callable[[str], None] | None) -> Reply:
        deadline = asyncio.timeout(request.timeout)
        try:
            async with deadline:
                if request.on_busy == "reject":
                    return await self._take_turns(request, say)
                # In this process messages of a device keep the order of their calls.
                lane = self._lanes.setdefault(request.device_id, asyncio.Lock())
                async with lane:
                    return await self._take_turns(request, say)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TurnTimeout(
                f"The turn took longer than {request.timeout:g} s; nothing of it was kept. Send the message again with "
                "the same message_id, or allow it more time."
            ) from error

    async def _take_turns(self, request: Request, say: Callable[[str], None] | None) -> Reply:
        """Runs what the device has to run until this request's message is answered."""
        incoming = request.incoming()
        recovered: list[Reply] = []
        claim_id = uuid4()
        while True:
            begun = await self._store.turns.begin(incoming, claim_id=claim_id, wait=request.on_busy != "reject")
            match begun:
                case Replayed():
                    return reply_of(begun.record, replayed=True, recovered=tuple(recovered))
                case Dead():
                    raise AgentError(
                        f"This message failed too often and was set aside ({begun.error}). Send it as a new message."
                    )
                case Busy():
                    if request.on_busy == "reject":
                        raise SessionBusy(begun.retry_after)
                    await asyncio.sleep(min(POLL, begun.retry_after) or POLL)
                case OpenTurn() if begun.message_id == request.message_id:
                    record = await self._run(begun, say)
                    return reply_of(record, recovered=tuple(recovered))
                case OpenTurn():
                    recovered.extend(await self._recover(begun))
                    claim_id = uuid4()

    async def _recover(self, turn: OpenTurn) -> list[Reply]:
        """Finishes a turn that a crashed process left; its failing again must not hold up the messages behind it."""
        try:
            return [reply_of(await self._run(turn, say=None))]
        except AgentError:
            logger.exception("Turn %s of %s failed again.", turn.turn_no, hash_device_id(turn.device_id))
            return []

    async def _run(self, turn: OpenTurn, say: Callable[[str], None] | None) -> TurnRecord:
        """Runs the graph for a claimed turn and commits it; a turn that fails is released, and nothing of it kept."""
        try:
            async with self._heartbeat(turn):
                with running(turn):
                    state = await self._graph.ainvoke(
                        await self._input(turn),
                        {"configurable": {"thread_id": turn.device_id}},
                        context=self._run_context(turn, say),
                        durability="exit",  # recovery starts from the last commit: nothing in between is kept
                    )
            record = record_of(turn, state)
            # A caller that gives up must not cut a commit in two.
            await asyncio.shield(self._store.turns.commit(turn, record))
        except BaseException as error:
            failure = failure_of(error)
            with contextlib.suppress(MoorlineError):
                await asyncio.shield(self._store.turns.release(turn, failure=type(failure).__name__, give_back=is_outer(error)))
            if failure is error:
                raise
            raise failure from error
        return record

    async def _input(self, turn: OpenTurn) -> Any:
        if turn.resume is None:
            return turn_input([turn.text])
        interrupt_id = turn.resume["interrupt_id"]
        snapshot = await self._graph.aget_state({"configurable": {"thread_id": turn.device_id}})
        if interrupt_id not in {interrupt.id for interrupt in snapshot.interrupts}:
            raise InvalidMessage(
                f"No interrupt {interrupt_id!r} waits for an answer on this device: it was answered, or the "
                "conversation has moved on. Send a message instead."
            )
        return Command(resume={interrupt_id: turn.resume["value"]})

    def _run_context(self, turn: OpenTurn, say: Callable[[str], None] | None) -> RunContext:
        tools = ToolContext(
            device_id=turn.device_id,
            now=turn.now,
            values=turn.context,
            transaction=lambda: self._store.turns.transaction(turn),
        )
        return RunContext(tools=tools, say=say)

    @contextlib.asynccontextmanager
    async def _heartbeat(self, turn: OpenTurn) -> AsyncIterator[None]:
        """Renews the lease while the block runs. A lease that is lost all the same is found out by the commit."""

        async def beat() -> None:
            standing = True
            while standing:
                await asyncio.sleep(HEARTBEAT)
                with contextlib.suppress(StoreUnavailable):
                    standing = await self._store.turns.heartbeat(turn)

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])
