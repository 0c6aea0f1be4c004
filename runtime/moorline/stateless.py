"""Answering while the store cannot be reached: without memory, and without effects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from moorline.context import Call
from moorline.errors import StaleTurn, StoreUnavailable
from moorline.execution import Execution
from moorline.reply import Reply
from moorline.results import Outputs, failure_of, reply_of
from moorline.telling import TurnTelling
from moorline.tracing import TurnSpan
from moorline_agents.journal import Admit, NoJournal
from moorline_agents.tools import Connection, Tool, ToolContext, ToolRefused
from moorline_checkpoint.facts import TurnFacts
from moorline_checkpoint.messages import TurnMessage
from moorline_checkpoint.turn import OpenTurn

_UNABLE = "The calendar and everything else that is stored cannot be reached right now. Say so, and ask to try later."


async def answer(execution: Execution, call: Call, telling: TurnTelling, span: TurnSpan, *, outputs: Outputs) -> Reply:
    """A degraded reply: the agents know nothing of the conversation, and nothing of it is kept.

    It runs in a turn that is never committed and, because it starts from nothing, reads nothing. Raises whatever goes
    wrong in the run, as a turn does.
    """
    message = call.message
    turn = OpenTurn(
        device_id=message.device_id,
        claim_id=uuid4(),
        fence=0,
        turn_no=0,
        messages=(TurnMessage(id=message.message_id, text=message.text, files=message.files),),
        resume=None,
        values=message.values,
        attempts=1,
        now=datetime.now(UTC),
        holder=None,
        active_agent=None,
        heads={},
        facts=TurnFacts(over=True),
    )
    telling.begin(turn)
    span.begun(turn)
    try:
        record = await execution.run(turn, telling, _NoEffects(), _no_transaction, tracing=span, brought=call.brought)
    except Exception as error:
        failure = failure_of(error)
        if failure is error:
            raise
        raise failure from error
    return reply_of(record, message_id=message.message_id, degraded=True, outputs=outputs)


class _NoEffects(NoJournal):
    async def perform(self, tool: Tool, arguments: str, context: ToolContext, admit: Admit | None = None) -> Any:
        if tool.effect != "none":
            raise ToolRefused(_UNABLE, code="store_unavailable")
        try:
            return await super().perform(tool, arguments, context, admit=admit)
        except (StoreUnavailable, StaleTurn) as error:  # it wanted to read facts, or to write them
            raise ToolRefused(_UNABLE, code="store_unavailable") from error


@asynccontextmanager
async def _no_transaction() -> AsyncIterator[Connection]:
    raise ToolRefused(_UNABLE, code="store_unavailable")
    yield  # makes it a generator, which a context manager needs
