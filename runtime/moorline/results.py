"""What a finished run means: the record that is committed, the reply that is given, the error that is raised."""

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
    """What is committed of a run. Raises `AgentError` for one that said nothing."""
    interrupt = Interrupt(id=interrupts[0].id, value=interrupts[0].value) if interrupts else None
    reply = _question(interrupt) if interrupt else progress.reply
    if not reply:
        raise AgentError(f"Agent {progress.agent} answered with nothing.")
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
    """A turn as its caller gets it."""
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
    """What the caller is told of a run that raised `error`: ours and cancellations as they are."""
    if isinstance(error, MoorlineError) or not isinstance(error, Exception):
        return error
    if isinstance(error, GraphRecursionError):
        return AgentError("The agents' graphs took too many steps without an answer.")
    return AgentError(f"An agent failed ({type(error).__name__}); the cause says where.")


def is_outer(error: BaseException) -> bool:
    """Whether the failure is not the message's own: it then does not count as one of its attempts."""
    return isinstance(error, StoreUnavailable | asyncio.CancelledError) or (
        isinstance(error, ModelError) and error.retryable
    )


def _question(interrupt: Interrupt) -> str:
    return interrupt.value if isinstance(interrupt.value, str) else str(interrupt.value)
