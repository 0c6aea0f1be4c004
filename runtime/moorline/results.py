"""What comes of a run: the record that is committed, the reply that is returned, or the error that is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langgraph.errors import GraphRecursionError
from langgraph.types import Interrupt as GraphInterrupt

from moorline.errors import AgentError, ModelError, MoorlineError, StoreUnavailable
from moorline.reply import Interrupt, Reply
from moorline_agents.run import Progress
from moorline_checkpoint.turn import OpenTurn, TurnRecord


def record_of(turn: OpenTurn, progress: Progress, interrupts: Sequence[GraphInterrupt]) -> TurnRecord:
    """The record of a run, to be committed. Raises `AgentError` if the agent said nothing."""
    interrupt = Interrupt(id=interrupts[0].id, value=interrupts[0].value) if interrupts else None
    reply = _question(interrupt) if interrupt else progress.reply
    if not reply:
        raise AgentError(f"Agent {progress.agent} gave an empty answer.")
    return TurnRecord(
        turn_no=turn.turn_no,
        agent=turn.active_agent if interrupt else progress.agent,
        reply=reply,
        handoffs=progress.handoffs,
        usage=progress.usage.as_dict(),
        interrupt={"id": interrupt.id, "value": interrupt.value} if interrupt else None,
    )


def reply_of(
    record: TurnRecord, *, replayed: bool = False, recovered: tuple[Reply, ...] = (), degraded: bool = False
) -> Reply:
    """The reply that the caller gets for a turn."""
    return Reply(
        record.reply,
        agent=record.agent,
        turn_no=record.turn_no,
        replayed=replayed,
        recovered=recovered,
        handoffs=record.handoffs,
        interrupt=Interrupt(**record.interrupt) if record.interrupt else None,
        usage=record.usage,
        degraded=degraded,
    )


def failure_of(error: BaseException) -> BaseException:
    """The error to raise for a run that raised `error`. Our own errors and cancellations stay as they are."""
    if isinstance(error, MoorlineError) or not isinstance(error, Exception):
        return error
    if isinstance(error, GraphRecursionError):
        return AgentError("The agents' graphs took too many steps without an answer.")
    return AgentError(f"An agent failed ({type(error).__name__}); see its cause.")


def is_outer(error: BaseException) -> bool:
    """Whether something other than the message caused the failure, so that it does not count as an attempt."""
    return isinstance(error, StoreUnavailable | asyncio.CancelledError) or (
        isinstance(error, ModelError) and error.retryable
    )


def _question(interrupt: Interrupt) -> str:
    return interrupt.value if isinstance(interrupt.value, str) else str(interrupt.value)
