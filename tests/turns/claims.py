"""Messages, claims and crashes made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from moorline_checkpoint.messages import IncomingMessage, OnBusy, Resume
from moorline_checkpoint.queue import QueueAnswer
from moorline_checkpoint.turn import OpenTurn, TurnRecord
from moorline_checkpoint.turns import Turns

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # which takes no type argument when it runs


def message(
    message_id: str = "m1",
    *,
    device: str = "d1",
    text: str | None = None,
    resume: Resume | None = None,
    values: Mapping[str, Any] | None = None,
    on_busy: OnBusy = "wait",
) -> IncomingMessage:
    """A message of `d1`, whose text is its ID by default."""
    return IncomingMessage(
        device_id=device,
        message_id=message_id,
        text=message_id if text is None else text,
        resume=resume,
        values=values or {},
        on_busy=on_busy,
    )


async def begin(turns: Turns, incoming: IncomingMessage, claim_id: UUID | None = None) -> OpenTurn | QueueAnswer:
    """Begins with a new claim if none is given."""
    return await turns.begin(incoming, claim_id=claim_id or uuid4())


async def claim(turns: Turns, incoming: IncomingMessage) -> OpenTurn:
    """Begins a turn that can be claimed at once."""
    turn = await begin(turns, incoming)
    assert isinstance(turn, OpenTurn)
    return turn


def record(turn: OpenTurn, reply: str = "reply", *, interrupt: Mapping[str, Any] | None = None) -> TurnRecord:
    """The record of a turn that replied `reply`."""
    return TurnRecord(turn_no=turn.turn_no, agent=None, reply=reply, handoffs=(), usage={}, interrupt=interrupt)


async def answer(turns: Turns, incoming: IncomingMessage, reply: str = "reply") -> OpenTurn:
    """Claims and commits."""
    turn = await claim(turns, incoming)
    await turns.commit(turn, record(turn, reply))
    return turn


def ids(turn: OpenTurn) -> list[str]:
    """The IDs of a turn's messages."""
    return [message.id for message in turn.messages]


async def expire_lease(connection: Connection, device: str = "d1") -> None:
    """Lets the lease of the process that holds the device end, as if it had died."""
    done = await connection.execute(
        "UPDATE conversation_states SET lease_until = clock_timestamp() - interval '1 second'"
        " WHERE device_id = $1 AND lease_until IS NOT NULL",
        device,
    )
    assert done == "UPDATE 1"


async def expire_waiter(connection: Connection, message_id: str, device: str = "d1") -> None:
    """Lets the waiter's lease of this message end, as if its process had died."""
    done = await connection.execute(
        "UPDATE conversation_messages SET waiter_until = clock_timestamp() - interval '1 second'"
        " WHERE device_id = $1 AND message_id = $2 AND status = 'waiting'",
        device,
        message_id,
    )
    assert done == "UPDATE 1"


async def statuses(connection: Connection, device: str = "d1") -> dict[str, tuple[str, int]]:
    """Status and attempts of the device's messages, in order of arrival."""
    rows = await connection.fetch(
        "SELECT message_id, status, attempts FROM conversation_messages WHERE device_id = $1 ORDER BY arrival", device
    )
    return {row["message_id"]: (row["status"], row["attempts"]) for row in rows}
