"""Turns: claiming a device for one message, and committing all that the turn leaves behind in one statement."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from moorline_checkpoint.codec import pack_json, pack_text, unpack_json, unpack_text
from moorline_checkpoint.database import StateKey
from moorline_checkpoint.devices import hash_device_id
from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.sessions import log_lock
from moorline_checkpoint.turn import OpenTurn, TurnRecord

if TYPE_CHECKING:
    from moorline_checkpoint.database import Connection, Database

LEASE = 15.0
"""Seconds a claimed turn is believed alive without a heartbeat, on the database's clock."""

HEARTBEAT = 5.0
"""Seconds between heartbeats of a running turn."""

WAITER = 15.0
"""Seconds a waiting message keeps its place without asking again."""

MAX_ATTEMPTS = 3
"""Claims of one message before it is set aside."""


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A message for the queue; `context` and `resume` hold JSON values."""

    device_id: str
    message_id: str
    text: str
    resume: Mapping[str, Any] | None
    context: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The message was answered before; this is its turn."""

    record: TurnRecord


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Another turn of the device runs, or another message is first."""

    retry_after: float
    """Seconds; the lease of the running turn, 0 where a message that waits is about to be claimed."""


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The message was set aside after `MAX_ATTEMPTS`; `error` names the last failure."""

    error: str


@dataclass(frozen=True, kw_only=True)
class TranscriptEntry:
    """A committed turn with the texts of its messages; times are the database's."""

    texts: tuple[str, ...]
    record: TurnRecord
    started_at: datetime
    committed_at: datetime


class Turns:
    """Claims, commits and releases turns. All state is in the database; any number of processes may work at once.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    def __init__(self, database: Database, *, default_ttl: int) -> None:
        """`default_ttl` seconds is the session TTL of a device that is new."""
        self._database = database
        self._default_ttl = default_ttl

    async def begin(self, message: Incoming, *, claim_id: UUID, wait: bool) -> OpenTurn | Replayed | Busy | Dead:
        """Claims the device's next turn, which may be a crashed one of an earlier message.

        Idempotent in `claim_id`: asked again with the same one, it gives the same turn again. With `wait` a
        message that finds the device busy keeps a place in the queue for `WAITER` seconds.
        """
        answer = await self._database.fetchval(
            "begin",
            message.device_id,
            pack_text(message.message_id),
            claim_id,
            pack_text(message.text),
            None if message.resume is None else pack_json(message.resume),
            pack_json(message.context),
            self._default_ttl,
            wait,
            LEASE,
            WAITER,
            MAX_ATTEMPTS,
        )
        found: dict[str, Any] = json.loads(answer)
        match found["outcome"]:
            case "replayed":
                return Replayed(record=_record(found))
            case "busy":
                return Busy(retry_after=found["retry_after"])
            case "dead":
                return Dead(error=found["error"])
        return OpenTurn(
            device_id=message.device_id,
            claim_id=claim_id,
            fence=found["fence"],
            turn_no=found["turn_no"],
            message_id=unpack_text(found["message_id"]),
            text=unpack_text(found["text"]),
            resume=unpack_json(found["resume"]),
            context=unpack_json(found["context"]),
            attempts=found["attempts"],
            now=datetime.fromisoformat(found["now"]),
            holder=found["active_agent"],
            active_agent=found["active_agent"],
            heads=found["heads"],
        )

    async def commit(self, turn: OpenTurn, record: TurnRecord) -> None:
        """Writes state, lock, reply and statuses together. Raises `StaleTurn`, and writes nothing, if the fence
        no longer stands. Asked again for a turn that was committed, it answers as it did."""
        if record.interrupt is None:
            turn.drop_passing()
        outcome = {
            "turn_no": turn.turn_no,
            "status": "done" if record.interrupt is None else "interrupted",
            "agent": record.agent,
            "reply": record.reply,
            "handoffs": list(record.handoffs),
            "usage": dict(record.usage),
            "interrupt": record.interrupt,
            "attempts": turn.attempts,
            "started_at": turn.now.isoformat(),
            "active_agent": turn.active_agent,
            "lock_taken": turn.active_agent != turn.holder,
            "session_ttl": turn.session_ttl,
            "heads": turn.heads,
        }
        committed = await self._database.fetchval(
            "commit", turn.device_id, turn.claim_id, turn.fence, pack_json(outcome), *turn.columns()
        )
        if not committed:
            raise _stale(turn)
        if turn.active_agent != turn.holder:
            log_lock(turn.device_id, turn.active_agent)

    async def release(self, turn: OpenTurn, *, failure: str, give_back: bool) -> None:
        """Ends a turn that failed; nothing of it is kept and the device goes on at once.

        The failure counts as an attempt unless `give_back`; after `MAX_ATTEMPTS` the message is set aside.
        """
        await self._database.fetchval(
            "release", turn.device_id, turn.claim_id, turn.fence, give_back, failure, MAX_ATTEMPTS
        )

    async def heartbeat(self, turn: OpenTurn) -> bool:
        """Renews the lease. False when another process has claimed the device since: the turn is stale."""
        return bool(
            await self._database.fetchval("heartbeat", turn.device_id, turn.claim_id, turn.fence, LEASE)
        )

    @asynccontextmanager
    async def transaction(self, turn: OpenTurn) -> AsyncIterator[Connection]:
        """A tool's transaction under the turn's fence. It holds the device's row, so that no other process claims
        the device before it ends. Raises `StaleTurn` if one already has."""
        async with self._database.transaction() as connection:
            hold = self._database.sql("hold_turn")
            if not await connection.fetchval(hold, StateKey(turn.device_id), turn.claim_id, turn.fence):
                raise _stale(turn)
            yield connection

    async def transcript(self, device_id: str) -> list[TranscriptEntry]:
        """All committed turns of the device, oldest first."""
        rows = await self._database.fetch("transcript", device_id)
        return [
            TranscriptEntry(
                texts=tuple(map(unpack_text, row["texts"])),
                record=_record(
                    {**row, "usage": json.loads(row["usage"]), "interrupt": json.loads(row["interrupt"] or "null")}
                ),
                started_at=row["started_at"],
                committed_at=row["committed_at"],
            )
            for row in rows
        ]


def _record(found: dict[str, Any]) -> TurnRecord:
    return TurnRecord(
        turn_no=found["turn_no"],
        agent=found["agent"],
        reply=unpack_text(found["reply"]),
        handoffs=tuple(found["handoffs"]),
        usage=found["usage"],
        interrupt=unpack_json(found["interrupt"]),
    )


def _stale(turn: OpenTurn) -> StaleTurn:
    return StaleTurn(
        f"Turn {turn.turn_no} of {hash_device_id(turn.device_id)} was taken over by another process or erased; nothing "
        "of it was kept. Send the message again with the same message_id."
    )
