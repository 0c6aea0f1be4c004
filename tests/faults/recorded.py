"""What a run left behind: the workers' logs and the database's rows, as plain values for the checker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from tests.faults.history import Event

_TOKEN = re.compile(rb"m-[a-z]+[0-9]*-[0-9]+")


@dataclass(frozen=True, kw_only=True)
class State:
    """A row of `conversation_states`."""

    device: str
    active_agent: str | None
    locked_at: datetime | None
    last_active_at: datetime | None
    last_turn_no: int
    fence: int
    open: bool
    heads: tuple[tuple[str, str], ...]
    """Namespace and checkpoint ID."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A row of `conversation_messages`."""

    device: str
    message: str
    turn_no: int | None
    arrival: int
    text: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A row of `conversation_turns`."""

    device: str
    turn_no: int
    fence: int
    agent: str | None
    reply: str
    handoffs: tuple[str, ...]
    attempts: int
    started_at: datetime
    committed_at: datetime


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A row of `conversation_checkpoints`. Its values and writes have rows of their own, with the same fence."""

    device: str
    ns: str
    checkpoint: str
    turn_no: int | None
    fence: int | None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a device has in values and writes under one fence."""

    device: str
    fence: int | None
    tokens: frozenset[str]
    """The message IDs in it."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A row of `conversation_effects`."""

    device: str
    message: str
    kind: str
    name: str
    fence: int
    result: Any


@dataclass(frozen=True, kw_only=True)
class Appointment:
    """A booked row of `appointments`."""

    device: str
    reference: str
    provider: int
    starts: datetime
    ends: datetime


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run."""

    events: tuple[Event, ...]
    """In the order in which they happened."""
    healed_at: float
    """When the fault was over, on the logs' monotonic clock."""
    states: tuple[State, ...]
    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    checkpoints: tuple[Checkpoint, ...]
    stored: tuple[Stored, ...]
    effects: tuple[Effect, ...]
    appointments: tuple[Appointment, ...]
    leaked: int
    """Connections that are left (with a pooler: that are not idle) when all workers have ended."""


async def record(dsn: str, *, events: tuple[Event, ...], healed_at: float, leaked: int) -> Recorded:
    """Reads the whole database in one snapshot."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return Recorded(
                events=events,
                healed_at=healed_at,
                states=tuple(map(_state, await connection.fetch(_STATES))),
                messages=tuple(Message(**row) for row in await connection.fetch(_MESSAGES)),
                turns=tuple(map(_turn, await connection.fetch(_TURNS))),
                checkpoints=tuple(Checkpoint(**row) for row in await connection.fetch(_CHECKPOINTS)),
                stored=tuple(map(_stored, await connection.fetch(_STORED))),
                effects=tuple(map(_effect, await connection.fetch(_EFFECTS))),
                appointments=tuple(Appointment(**row) for row in await connection.fetch(_APPOINTMENTS)),
                leaked=leaked,
            )
    finally:
        await connection.close()


_STATES = """
    SELECT device_id AS device, active_agent, locked_at, last_active_at, last_turn_no, fence,
        claim_id IS NOT NULL AS open, heads
    FROM conversation_states ORDER BY device_id
"""
_MESSAGES = """
    SELECT device_id AS device, message_id AS message, turn_no, arrival, text, status
    FROM conversation_messages ORDER BY device_id, arrival
"""
_TURNS = """
    SELECT device_id AS device, turn_no, fence, agent, reply, handoffs, attempts, started_at, committed_at
    FROM conversation_turns ORDER BY device_id, turn_no
"""
_CHECKPOINTS = """
    SELECT device_id AS device, checkpoint_ns AS ns, checkpoint_id AS checkpoint, turn_no, fence
    FROM conversation_checkpoints ORDER BY device_id, checkpoint_ns, checkpoint_id
"""
_STORED = """
    SELECT device, fence, array_agg(blob) AS blobs
    FROM (
        SELECT device_id AS device, fence, blob FROM conversation_values
        UNION ALL
        SELECT device_id, fence, blob FROM conversation_writes
    ) AS both_tables
    GROUP BY device, fence ORDER BY device, fence
"""
_EFFECTS = """
    SELECT device_id AS device, message_id AS message, kind, name, fence, result
    FROM conversation_effects ORDER BY device_id, message_id, position
"""
_APPOINTMENTS = """
    SELECT device_id AS device, left(appointment_id::text, 8) AS reference, provider_id AS provider,
        lower(during) AS starts, upper(during) AS ends
    FROM appointments WHERE status = 'booked' ORDER BY provider_id, during
"""


def _state(row: asyncpg.Record) -> State:
    return State(**{**row, "heads": tuple(json.loads(row["heads"]).items())})


def _turn(row: asyncpg.Record) -> Turn:
    return Turn(**{**row, "handoffs": tuple(row["handoffs"])})


def _stored(row: asyncpg.Record) -> Stored:
    return Stored(device=row["device"], fence=row["fence"], tokens=_tokens(row["blobs"]))


def _tokens(blobs: Iterable[bytes | None]) -> frozenset[str]:
    return frozenset(token.decode() for blob in blobs for token in _TOKEN.findall(blob or b""))


def _effect(row: asyncpg.Record) -> Effect:
    return Effect(**{**row, "result": json.loads(row["result"] or "null")})
