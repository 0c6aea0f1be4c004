"""The runtime: takes a message, finds or makes its turn, and gives back the reply.

One turn is claim, run, commit. Claiming and committing are `moorline_checkpoint.turns`, running is `execution`; this
module takes messages through the queue of their device and decides what its answers mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, assert_never
from uuid import uuid4

from moorline import stateless
from moorline.backend import Backend, open_backend
from moorline.background import GRACE, Background
from moorline.context import Request, Resume, TurnContext, check_request
from moorline.defaults import chat_model, shipped_agents
from moorline.errors import AgentError, MoorlineError, SessionBusy, StoreUnavailable, TurnTimeout
from moorline.events import Event, TextDelta, TurnDone, TurnFailed
from moorline.execution import Execution, OnText
from moorline.manager import AgentProtocol, Manager, StartOver
from moorline.reply import Reply
from moorline.results import reply_of
from moorline.settings import Settings, load_settings
from moorline.waiters import Waiters
from moorline_agents.agent import AgentDeps
from moorline_checkpoint.devices import hash_device_id, require_device_id
from moorline_checkpoint.queue import Busy, Dead, DeadLetter, Replayed, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import TranscriptEntry

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from moorline_checkpoint.sessions import Session

Begun = OpenTurn | Replayed | Waiting | Busy | Dead

logger = logging.getLogger("moorline.runtime")


class _Call:
    """A message on its way through the queue."""

    def __init__(self, request: Request, on_text: OnText | None) -> None:
        self.request = request
        self.on_text = on_text
        self.recovered: list[Reply] = []
        self.claim_id = uuid4()
        self.deadline = asyncio.timeout(request.timeout)
        self.claimed = False
        """Whether its turn has begun: then it is worth finishing without its caller."""


class Moorline:
    """The explicit form of `run_manager`: `async with Moorline(settings, agents=[…]) as m: await m.run(…)`.

    One object serves any number of devices at once. Everything it knows of a conversation is in the database:
    a second process, or this one started again, goes on where the last committed turn ended.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agents: Sequence[AgentProtocol] | None = None,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None,
        on_recovered: Callable[[str, Reply], None] | None = None,
    ) -> None:
        """`agents` replace the ones that ship, `client` the one that the settings describe.

        `on_recovered(device_id, reply)` is handed the replies of crashed turns that this runtime finishes, instead
        of `Reply.recovered`: their callers are gone, so somebody has to send them.
        """
        self.settings = settings or load_settings()
        self._agents = agents
        self._model = chat_model(self.settings, client=client)
        self._on_recovered = on_recovered
        self._waiters = Waiters()
        self._background = Background()

    async def __aenter__(self) -> Self:
        """Raises `ConfigurationError`, `SchemaMismatch` or `StoreUnavailable` when turns could not run."""
        self._backend = await open_backend(self.settings)
        try:
            graph = self._manager(self._backend).compile()
            self._execution = Execution(graph=graph, turns=self._backend.turns, background=self._background)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Waits for turns whose callers have gone, then gives the connections back."""
        await self._background.finish()
        await self._model.aclose()
        await self._backend.close()

    async def run(self, message: str | Resume, context: Mapping[str, Any] | TurnContext) -> Reply:
        """One message in, one reply out, in one turn of the device.

        Turns of a device run one after another, in whatever processes they arrive. A `message_id` that was answered
        before gets the stored reply. When an error is raised, nothing of the turn was kept and the same call may be
        made again: `InvalidMessage`, `InvalidContext` and `InvalidDeviceID` before anything is stored, then
        `SessionBusy`, `TurnTimeout`, `AgentError`, `StaleTurn`, `StoreUnavailable`. After `TurnTimeout` and
        `StoreUnavailable` call with the same `message_id`: the turn may have been committed at the last moment.
        """
        return await self._answer(_Call(check_request(message, context, self.settings), None))

    async def stream(self, message: str | Resume, context: Mapping[str, Any] | TurnContext) -> AsyncIterator[Event]:
        """`run` as a stream: `TextDelta` while the model writes, at last `TurnDone` or `TurnFailed`."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        call = _Call(check_request(message, context, self.settings), pieces.put_nowait)
        turn = asyncio.create_task(self._answer(call))
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

    async def recover(self) -> int:
        """Finishes what crashed processes left behind on all devices; how many turns that were.

        Their replies go to `on_recovered`.
        """
        count = 0
        for device_id in await self._backend.turns.orphaned():
            while turn := await self._backend.turns.begin_orphaned(device_id):
                if await self._recover(turn) is None:
                    break
                count += 1
        return count

    async def dead_letters(self) -> list[DeadLetter]:
        """Messages that were set aside after they failed too often, the last first."""
        return await self._backend.turns.dead_letters()

    async def requeue(self, device_id: str, message_id: str) -> Reply | None:
        """Tries a message that was set aside once more, after those that wait; None if there is no such message."""
        incoming = await self._backend.turns.requeue(self._device(device_id), message_id)
        if incoming is None:
            return None
        return await self._answer(_Call(Request.again(incoming, self.settings), None))

    async def session(self, device_id: str) -> Session | None:
        """Who holds the device's session, since when and until when; None if nobody does."""
        return await self._backend.saver.get_session(self._device(device_id))

    async def transcript(self, device_id: str) -> list[TranscriptEntry]:
        """All committed turns of the device with their messages, oldest first."""
        return await self._backend.turns.transcript(self._device(device_id))

    async def erase(self, device_id: str) -> None:
        """Removes everything of the device, for good; a turn that is running becomes stale."""
        device_id = self._device(device_id)
        await self._backend.saver.adelete_thread(device_id)
        self._backend.turns.forget(device_id)

    def _manager(self, store: Backend) -> Manager:
        return Manager(
            agents=self._agents if self._agents is not None else shipped_agents(self.settings),
            saver=store.saver,
            deps=AgentDeps(model=self._model, tool_rounds=self.settings.tool_rounds),
            start_over=StartOver(words=self.settings.start_over),
        )

    def _device(self, device_id: str) -> str:
        return require_device_id(device_id, uuid_only=self.settings.device_ids == "uuid")

    async def _answer(self, call: _Call) -> Reply:
        """Answers in a task of its own, so that a caller that goes away cuts nothing in two."""
        task = self._background.start(self._in_time(call))
        try:
            # A commit that is under way when the time is up ends without its caller.
            await asyncio.wait([task], timeout=call.request.timeout + GRACE)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            if not call.claimed or call.request.on_cancel == "release":
                task.cancel()
                await asyncio.wait([task], timeout=GRACE)
            raise
        if task.done():
            return task.result()
        task.add_done_callback(_log_failure)
        raise _too_late(call.request)

    async def _in_time(self, call: _Call) -> Reply:
        try:
            async with call.deadline:
                return await self._through_queue(call)
        except TimeoutError as error:
            if not call.deadline.expired():
                raise
            raise _too_late(call.request) from error

    async def _through_queue(self, call: _Call) -> Reply:
        """Takes the device's turns, as the queue gives them out, until this call's message is answered."""
        waiters = self._waiters.of(call.request.device_id)
        try:
            async with waiters.entrance:
                begun = await self._begin(call)
        except asyncio.CancelledError:
            await self._withdraw(call)
            raise
        except StoreUnavailable as error:
            if error.reached:
                await self._withdraw(call)
            if self.settings.on_store_down == "fail" or error.reached or call.request.resume is not None:
                raise
            return await stateless.answer(self._execution, call.request, call.on_text)
        try:
            with waiters.join() as waiter:
                while isinstance(begun, Waiting | OpenTurn):
                    if isinstance(begun, Waiting):
                        await waiters.pause(waiter)
                    elif call.request.message_id in {message.id for message in begun.messages}:
                        call.claimed = True
                        record = await self._execution.execute(
                            begun, call.on_text, notify=call.request.message_id, overdue=call.deadline.expired
                        )
                        return reply_of(record, recovered=tuple(call.recovered))
                    else:
                        reply = await self._recover(begun)
                        if reply is not None and self._on_recovered is None:
                            call.recovered.append(reply)
                    begun = await self._begin(call)
        except BaseException:
            if not call.claimed:
                await self._withdraw(call)
            raise
        return self._answered(call, begun)

    async def _begin(self, call: _Call) -> Begun:
        begun = await self._backend.turns.begin(call.request.incoming(), claim_id=call.claim_id)
        if isinstance(begun, OpenTurn):
            call.claim_id = uuid4()
        return begun

    async def _withdraw(self, call: _Call) -> None:
        """Gives up the call's place in the queue, and what a Begin may have won whose answer did not come."""
        incoming, claim_id = call.request.incoming(), call.claim_id
        await self._background.release(lambda: self._backend.turns.withdraw(incoming, claim_id=claim_id))

    def _answered(self, call: _Call, begun: Replayed | Busy | Dead) -> Reply:
        match begun:
            case Replayed():
                if begun.other_text:
                    logger.warning(
                        "A message of %s came again with another text; the reply to the first text stands.",
                        hash_device_id(call.request.device_id),
                    )
                return reply_of(begun.record, replayed=True, recovered=tuple(call.recovered))
            case Busy():
                raise SessionBusy(begun.retry_after)
            case Dead():
                raise AgentError(
                    f"This message failed too often and was set aside ({begun.error}). `moorline recover --message` "
                    "tries it again."
                )
            case _:
                assert_never(begun)

    async def _recover(self, turn: OpenTurn) -> Reply | None:
        """Finishes a turn that a crashed process left; its failing again must not hold up the messages behind it, and
        gives None."""
        try:
            reply = reply_of(await self._execution.execute(turn))
        except StoreUnavailable:
            raise
        except MoorlineError as error:
            # Its cause may quote the conversation: only its kind is logged.
            whose = hash_device_id(turn.device_id)
            logger.error("Turn %s of %s failed again: %s", turn.turn_no, whose, type(error).__name__)  # noqa: TRY400
            return None
        if self._on_recovered is not None:
            self._on_recovered(turn.device_id, reply)
        return reply


def _too_late(request: Request) -> TurnTimeout:
    return TurnTimeout(
        f"The message was not answered within {request.timeout:g} s. Send it again with the same message_id, or allow "
        "it more time."
    )


def _log_failure(task: asyncio.Task[Reply]) -> None:
    """A turn that its caller has left fails with nobody to tell."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("A turn whose caller had gone failed: %s", type(error).__name__)
