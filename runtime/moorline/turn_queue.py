"""A message's way to its reply: through the queue of its device, into a turn.

`moorline_checkpoint.turns` claims and commits turns, and `execution` runs them; this module asks the queue until the
message is answered, and decides what the queue's answers mean.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, assert_never
from uuid import UUID, uuid4

from moorline import stateless
from moorline.background import GRACE, Background
from moorline.context import Call
from moorline.errors import (
    LinkRefused,
    MessageSetAside,
    MoorlineError,
    SessionBusy,
    StoreUnavailable,
    TurnCancelled,
    TurnTimeout,
    only_ours,
)
from moorline.execution import Execution, stale_resume
from moorline.reply import Reply
from moorline.results import Outputs, reply_of
from moorline.telling import UNHEARD, TurnTelling
from moorline.tracing import UNTRACED, UNTRACED_TURN, Tracing, TurnSpan
from moorline.waiters import FULL, Waiters
from moorline_checkpoint.messages import POLICIES
from moorline_checkpoint.queue import Busy, Dead, Gone, Joined, QueueAnswer, Replayed, StaleResume, Waiting
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

logger = logging.getLogger("moorline.runtime")


_GONE = "The caller went away, and its call was given up. Send the message again."


class _Passage:
    """The progress of one call."""

    def __init__(self, call: Call, telling: TurnTelling) -> None:
        self.telling = telling
        self.span: TurnSpan = UNTRACED_TURN
        self.claim_id: UUID = uuid4()
        self.deadline = asyncio.timeout(call.timeout)
        self.recovered: tuple[Reply, ...] = ()
        self.turn: OpenTurn | None = None
        """The call's turn, once it has begun: from then on it is worth finishing even without its caller."""
        self.may_have_run = not call.made_up_id
        """Until the turn has begun: whether effects of an earlier call with this message may stand."""

    def effects_kept(self, error: MoorlineError) -> bool:
        """Whether any effects of the message stand, or may stand, after it failed."""
        if isinstance(error, SessionBusy):
            self.may_have_run = False
        return self.may_have_run if self.turn is None else _kept(self.turn)


@dataclass(frozen=True, kw_only=True)
class TurnQueue:
    """Answers the calls of any number of devices, those of one device in the order of its queue."""

    turns: Turns
    execution: Execution
    background: Background
    on_recovered: Callable[[str, Reply], None] | None
    """Gets the replies of crashed turns, instead of the call that finished them."""
    recovering: Callable[[str], TurnTelling]
    """The telling of a crashed turn of the device."""
    on_store_down: Literal["fail", "stateless"]
    queue_max: int
    """Messages of one device that may wait at the same time."""
    turn_timeout: float
    """Seconds that a message has at least before running out of time counts as a failed attempt: a caller who allows
    less must not get it set aside for that."""
    notices: Mapping[str, str]
    """What devices are told, in words."""
    outputs: Outputs
    """The classes of agents' answers."""
    tracing: Tracing = UNTRACED
    waiters: Waiters = field(default_factory=Waiters)

    async def answer(self, call: Call, telling: TurnTelling = UNHEARD) -> Reply:
        """The reply to the call's message.

        The work is done in a task of its own, so that a caller who goes away interrupts nothing halfway.
        """
        message = call.message
        waiters = self.waiters.of(message.device_id)
        if waiters.full(self.queue_max):  # before anything is made for the call: a flood must cost others little
            busy = SessionBusy(FULL, full=True)
            raise self.tell(busy, telling, message.device_id, message.message_id, effects_kept=False)
        passage = _Passage(call, telling)
        with self._failures_of(call, passage), waiters.call():
            return await self._answer_in_the_background(call, passage)

    def tell(
        self, error: MoorlineError, telling: TurnTelling, device_id: str, message_id: str, *, effects_kept: bool
    ) -> MoorlineError:
        """Has the error say whose turn it comes out of and what stands of it, and tells it."""
        error.device_id = self.turns.tags.of(device_id)
        error.message_id = message_id
        error.effects_kept = effects_kept
        telling.fail(error)
        return error

    def _failures_of(self, call: Call, passage: _Passage) -> _Failures:
        message = call.message
        return _Failures(self, passage.telling, message.device_id, message.message_id, passage.effects_kept)

    async def _answer_in_the_background(self, call: Call, passage: _Passage) -> Reply:
        task = self.background.start(self._to_the_end(call, passage))
        try:
            # A commit that is under way when the time is up is finished without its caller.
            await asyncio.wait([task], timeout=call.timeout + GRACE)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            if passage.turn is None or call.on_cancel == "release":
                task.cancel()
                await asyncio.wait([task], timeout=GRACE)
            raise
        if task.done():
            return task.result()
        task.add_done_callback(_log_failure)
        raise _too_late(call)

    async def recover(
        self, on_reply: Callable[[str, Reply], None] | None, on_failure: Callable[[str, Exception], None] | None
    ) -> int:
        """Finishes the turns that crashed processes left on all devices, and returns how many there were. Goes on with
        the next device if one fails, unless the store cannot be reached at all."""
        count = 0
        for device_id in await self.turns.orphaned():
            try:
                while turn := await self.turns.begin_orphaned(device_id):
                    reply = await self._finish(turn)
                    count += 1
                    if on_reply is not None:
                        on_reply(turn.sender, reply)
            except Exception as error:
                if isinstance(error, StoreUnavailable) and not error.reached:
                    raise
                whose = self.turns.tags.of(device_id)
                logger.error("Recovering %s failed: %s", whose, type(error).__name__)  # noqa: TRY400 - see _recover
                if on_failure is not None:
                    on_failure(device_id, error)
        return count

    async def _to_the_end(self, call: Call, passage: _Passage) -> Reply:
        """Tells the outcome even if the caller has gone."""
        try:
            with (
                self.tracing.turn(partial(self.turns.tags.of, call.message.device_id)) as passage.span,
                self._failures_of(call, passage),
            ):
                reply = await self._in_time(call, passage)
                passage.span.replied(reply)
        except asyncio.CancelledError:
            passage.telling.fail(TurnCancelled(_GONE))
            raise
        passage.telling.finish(reply)
        return reply

    async def _in_time(self, call: Call, passage: _Passage) -> Reply:
        try:
            async with passage.deadline:
                return await self._answer(call, passage)
        except TimeoutError as error:
            if not passage.deadline.expired():
                raise
            raise _too_late(call) from error

    async def _answer(self, call: Call, passage: _Passage) -> Reply:
        """Runs the turns that the device's queue gives out, until this call's message is answered."""
        waiters = self.waiters.of(call.message.device_id)
        try:
            # A call that does not wait for its turn does not queue up here either.
            async with waiters.entrance if POLICIES[call.message.on_busy].waits else nullcontext():
                begun = await self._begin(call, passage)
        except StoreUnavailable as error:
            if error.reached:
                await self._withdraw(call, passage)
            if self.on_store_down == "fail" or error.reached or not _is_said(call):
                raise
            return await stateless.answer(self.execution, call, passage.telling, passage.span, outputs=self.outputs)
        except BaseException:
            await self._withdraw(call, passage)
            raise
        try:
            with waiters.join() as waiter:
                while isinstance(begun, Waiting | OpenTurn):
                    if isinstance(begun, Waiting):
                        await waiters.pause(waiter)
                    elif begun.has(call.message.device_id, call.message.message_id):
                        return await self._execute(begun, call, passage)
                    else:
                        passage.claim_id = uuid4()  # the other one is the claim of this turn
                        reply = await self._recover(begun)
                        # A reply goes to the device that wrote.
                        ours = begun.sender == call.message.device_id
                        if reply is not None and self.on_recovered is None and ours:
                            passage.recovered += (reply,)
                    begun = await self._begin(call, passage)
        except BaseException:
            if passage.turn is None:
                await self._withdraw(call, passage)
            raise
        return self._answered(begun, call, passage)

    async def _begin(self, call: Call, passage: _Passage) -> OpenTurn | QueueAnswer:
        return await self.turns.begin(call.message, claim_id=passage.claim_id)

    async def _withdraw(self, call: Call, passage: _Passage) -> None:
        """Gives up the call's place in the queue, and any claim that a Begin may have won without its answer
        arriving."""
        claim_id = passage.claim_id
        kept = await self.background.release(lambda: self.turns.withdraw(call.message, claim_id=claim_id))
        if kept is not None:
            passage.may_have_run = kept

    async def _execute(self, turn: OpenTurn, call: Call, passage: _Passage) -> Reply:
        passage.turn = turn
        passage.telling.begin(turn)
        passage.span.begun(turn)
        record = await self.execution.execute(
            turn,
            passage.telling,
            tracing=passage.span,
            notify=call.message.message_id,
            overdue=lambda: passage.deadline.expired() and call.timeout >= self.turn_timeout,
            until=passage.deadline.when() or math.inf,
            brought=call.brought,
        )
        return reply_of(
            record,
            message_id=call.message.message_id,
            recovered=passage.recovered,
            notice=self._in_words(turn.notice),
            outputs=self.outputs,
        )

    def _in_words(self, notice: str | None) -> str | None:
        return None if notice is None else self.notices.get(notice)

    def _answered(
        self, answer: Replayed | Busy | StaleResume | Dead | Joined | Gone, call: Call, passage: _Passage
    ) -> Reply:
        match answer:
            case Replayed():
                if answer.other_text:
                    logger.warning(
                        "A message of %s came again with a different text; the reply to the first text stands.",
                        self.turns.tags.of(call.message.device_id),
                    )
                reply = reply_of(
                    answer.record,
                    message_id=call.message.message_id,
                    replayed=True,
                    recovered=passage.recovered,
                    notice=self._in_words(answer.notice),
                    outputs=self.outputs,
                )
                passage.telling.replay(reply)
                return reply
            case Busy():
                raise SessionBusy(answer.retry_after, full=answer.full)
            case StaleResume():
                passage.may_have_run = False  # nothing of it is stored any more
                raise stale_resume(answer.resume)
            case Dead():
                raise MessageSetAside(
                    f"This message failed too often and was set aside ({answer.error}). `moorline recover --message` "
                    "tries it again."
                )
            case Joined():
                return Reply("")
            case Gone():
                raise LinkRefused(
                    "The conversation that the code was for is gone; let the other device make a new code."
                )
            case _:
                assert_never(answer)

    async def _recover(self, turn: OpenTurn) -> Reply | None:
        """Finishes a turn that a crashed process left. Returns None if it fails again, which must not hold up the
        messages behind it."""
        try:
            return await self._finish(turn)
        except StoreUnavailable:
            raise
        except MoorlineError as error:
            # Only the kind of error is logged: its cause may quote the conversation.
            whose = self.turns.tags.of(turn.device_id)
            logger.error("Turn %s of %s failed again: %s", turn.turn_no, whose, type(error).__name__)  # noqa: TRY400
            return None

    async def _finish(self, turn: OpenTurn) -> Reply:
        telling, message_id = self.recovering(turn.sender), turn.messages[-1].id
        telling.begin(turn, recovered=True)
        try:
            with (
                self.tracing.turn(partial(self.turns.tags.of, turn.sender), recovered=True) as span,
                _Failures(self, telling, turn.sender, message_id, lambda _: _kept(turn)),
            ):
                span.begun(turn)
                record = await self.execution.execute(turn, telling, tracing=span)
                reply = reply_of(
                    record, message_id=message_id, notice=self._in_words(turn.notice), outputs=self.outputs
                )
                span.replied(reply)
        except asyncio.CancelledError:
            telling.fail(TurnCancelled(_GONE))
            raise
        telling.finish(reply)
        if self.on_recovered is not None:
            self.on_recovered(turn.sender, reply)
        return reply


class _Failures(only_ours):
    """A block whose errors are all ours, and are told with what stands."""

    def __init__(
        self,
        queue: TurnQueue,
        telling: TurnTelling,
        device_id: str,
        message_id: str,
        effects_kept: Callable[[MoorlineError], bool],
    ) -> None:
        self._queue, self._telling = queue, telling
        self._device_id, self._message_id = device_id, message_id
        self._effects_kept = effects_kept

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            super().__exit__(kind, error, trace)
        except MoorlineError as unforeseen:
            self._tell(unforeseen)
            raise
        if isinstance(error, MoorlineError):
            self._tell(error)

    def _tell(self, error: MoorlineError) -> None:
        kept = self._effects_kept(error)
        self._queue.tell(error, self._telling, self._device_id, self._message_id, effects_kept=kept)


def _is_said(call: Call) -> bool:
    """Whether it is a message in words, which can be answered without anything that is stored."""
    return call.message.resume is None and call.message.joins is None


def _kept(turn: OpenTurn) -> bool:
    """Whether the failed turn has effects that stand."""
    return turn.journaled if turn.effects_kept is None else turn.effects_kept


def _too_late(call: Call) -> TurnTimeout:
    return TurnTimeout(f"The message was not answered within {call.timeout:g} s; allow more time if that is usual.")


def _log_failure(task: asyncio.Task[Reply]) -> None:
    """Logs the failure of a turn whose caller has gone, as nobody else would learn of it."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("A turn whose caller had gone failed: %s", type(error).__name__)
