"""The open turn: what its run started from, and what it has written so far.

It travels in the run's own context (a context variable) rather than in a table of devices, so a stale turn in the same
process never writes into a newer one. What the run writes joins the open turn and reaches the database with its commit,
or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from langgraph.checkpoint.serde.types import INTERRUPT

from moorline_checkpoint.ending import Ending
from moorline_checkpoint.facts import TurnFacts
from moorline_checkpoint.messages import Resume, TurnMessage
from moorline_checkpoint.packing import load_json, pack_json
from moorline_checkpoint.rows import CheckpointRow, HeadRows, ValueRow, WriteRow, in_order

_LONGEST = 1_000
"""Characters that are recorded of a hand-over's reason, and of its note."""

SEPARATOR = "\x1f"
"""Stands between an address and the ID of its message. Neither has it."""


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Where a run began that has stopped to ask, so that the turns in which it goes on give its calls the same
    idempotency keys."""

    message_id: str
    """The first message of the run's first turn."""
    places: int
    """How many places of its journal are taken."""


@dataclass(frozen=True, kw_only=True)
class TurnRecord:
    """The result of a turn, as the transcript keeps it."""

    turn_no: int
    agent: str | None
    reply: str
    handoffs: tuple[str, ...]
    usage: Mapping[str, Any]
    """What the turn cost, failed attempts included, as its caller writes it; JSON."""
    interrupt: Mapping[str, Any] | None
    """`id` and `value` of the interrupt that waits for an answer."""
    run: RunStart | None = None
    """The run that the interrupt stopped."""
    output: Any = None
    """What a program gets of the reply; a JSON object, or None. A turn that asks has none."""


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """What a turn has to remember in case it runs again: a model's answer that called tools, or an effect."""

    kind: Literal["answer", "database", "outside"]
    name: str
    """The agent that the model answered, or the tool."""
    intent: Any
    """The answer, or the arguments of the call."""
    result: Any = None
    """The result of the call; None while it is not known."""
    agent: str | None = None
    """The agent (or the router) whose answer or tool it was; None if that is not known."""


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A question that waits for an answer."""

    interrupt_id: str
    run: RunStart | None
    """The run that it stopped."""
    attempts: tuple[tuple[JournalEntry, ...], ...] = ()
    """The first two entries that each turn has journaled which came after it and failed."""


@dataclass(frozen=True, kw_only=True)
class UnfinishedEffect:
    """What a tool did for a message whose turn then failed and has not been finished yet."""

    message_id: str
    """The first message of that turn; sending it again finishes the turn."""
    agent: str | None
    name: str
    """The tool."""
    intent: Any
    """The arguments of the call."""
    result: Any
    """The result of the call; None if it is not known whether the effect happened."""


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(kw_only=True)
class OpenTurn:
    """A claimed turn while it runs."""

    device_id: str
    """The device whose conversation it is."""
    claim_id: UUID
    fence: int
    turn_no: int
    messages: tuple[TurnMessage, ...]
    """The message, or the merged messages in order of arrival."""
    resume: Resume | None
    values: Mapping[str, Any]
    """The other keys of the messages' context."""
    attempts: int
    """Claims of this message so far, this one included."""
    now: datetime
    """The database's time at the claim."""
    holder: str | None
    """The agent that held the live lock when the turn started."""
    heads: dict[str, str]
    """The current checkpoint of each namespace: first what the claim brought, then the turn's own."""
    active_agent: str | None
    """The agent that holds the session from the turn's commit on."""
    prefetched: Mapping[str, HeadRows] = field(default_factory=dict)
    """By namespace, the heads that came with the claim."""
    journal: Sequence[JournalEntry] = ()
    """The journal that an earlier run of the same messages left, in order."""
    journaled: bool = False
    """Whether the turn has a journal, which its commit then cleans up."""
    run: RunStart | None = None
    """The run that goes on in this turn, which brings an answer; None if one begins."""
    made: JournalEntry | None = None
    """What the call that goes on did for an earlier answer, whose turn failed: it is not made again."""
    unfinished: tuple[UnfinishedEffect, ...] = ()
    """The effects, in order, of the device's other messages whose turns failed and are not finished."""
    spent: Mapping[str, Any] = field(default_factory=dict)
    """The usage of earlier attempts that failed, as `release` was given it."""
    effects_kept: bool | None = None
    """After a failure: whether the turn has effects that stand; None if its release did not say."""
    address: str | None = None
    """The device that sent its messages, if that is another."""
    notice: str | None = None
    """What that device is told with the reply: `joined`, another device has joined the conversation; `closed`, a
    question that waited could no longer be answered."""
    stopped: bool = False
    """Whether one of its messages was stopped before the claim."""
    session_ttl: int | None = None
    """Seconds that the agent's sessions live; None keeps the value in the device's row."""
    call_ttl: int | None = None
    """Seconds that whoever set the lock in the turn asked for."""
    session_until: datetime | None = None
    """The moment that they asked for instead."""
    ended: list[tuple[str, Ending]] = field(default_factory=list)
    """The agents whose sessions ended in the turn, in order, and why."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """How the turn changed the lock, in order: the agent that holds it then (`lock`, null: none) and `why`; of one that
    was taken, for how long if its agent or the call said so (`ttl`, `until`), and of a hand-over its `by`, `reason` and
    `note`."""
    facts: TurnFacts = field(default_factory=TurnFacts)
    """The facts that it has written."""
    transactions: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a transaction under the turn's claim; only one may be open at a time."""
    row_free: asyncio.Event = field(default_factory=_set_event)
    """Whether no such transaction holds the device's row."""
    checkpoints: dict[tuple[str, str], CheckpointRow] = field(default_factory=dict)
    channel_values: dict[tuple[str, str, str], ValueRow] = field(default_factory=dict)
    writes: dict[tuple[str, str], dict[tuple[str, int], WriteRow]] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        """The device that sent its messages, to which the reply goes."""
        return self.address or self.device_id

    def has(self, device_id: str, message_id: str) -> bool:
        """Whether the turn answers this message of the device."""
        return self.sender == device_id and any(message.id == message_id for message in self.messages)

    def stored_id(self, message_id: str) -> str:
        """The ID under which the conversation has one of its messages."""
        return stored_id(self.address, message_id)

    @property
    def follows_question(self) -> bool:
        """Whether the run before this turn's stopped to ask."""
        manager = self.prefetched.get("")
        return manager is not None and any(write.channel == INTERRUPT for write in manager.head.writes)

    @property
    def lock_taken(self) -> bool:
        """Whether the lock that the turn leaves, if any, is another one than it found."""
        return bool(self.ended) or self.active_agent != self.holder

    def set_lock(
        self, agent: str, ttl: int | None, *, until: datetime | None = None, agent_ttl: int | None = None
    ) -> None:
        """The agent holds the session from this turn's commit on, for as long as `set_session_lock` says."""
        if agent != self.active_agent:
            self._end("taken")
            lasts = {
                "ttl": ttl if ttl is not None else agent_ttl,
                "until": None if until is None else until.isoformat(),
            }
            self._changed(agent, "taken", **lasts)
        self.active_agent = agent
        self.session_ttl = next((each for each in (ttl, agent_ttl) if each is not None), self.session_ttl)
        if ttl is not None or until is not None:
            self.call_ttl, self.session_until = ttl, until

    def clear_lock(self, why: Ending = "cleared", *, by: str = "", reason: str = "", note: str = "") -> bool:
        """Nobody holds the session from this turn's commit on. Returns whether anybody did until now. A hand-over is
        recorded with its reason and note also if nobody did."""
        ended = self._end(why)
        if ended or why == "handed_over":
            self._changed(None, why, by=by, reason=reason, note=note)
        return ended

    def record_hand_over(self, *, by: str, reason: str, note: str) -> None:
        """An agent that holds no session hands over; whoever holds it stays."""
        self._changed(self.active_agent, "handed_over", by=by, reason=reason, note=note)

    def _changed(self, lock: str | None, why: Ending, **told: str | int | None) -> None:
        kept = {name: each[:_LONGEST] if isinstance(each, str) else each for name, each in told.items() if each}
        self.changes.append({"lock": lock, "why": why, **kept})

    def _end(self, why: Ending) -> bool:
        held, self.active_agent = self.active_agent, None
        self.call_ttl = self.session_until = None
        if held is not None:
            self.ended.append((held, why))
        return held is not None

    def start_anew(self) -> None:
        """The outermost graph runs from nothing, as on a new device. Other namespaces stay."""
        self.heads.pop("", None)
        self.prefetched = {ns: rows for ns, rows in self.prefetched.items() if ns}

    def put(self, checkpoint: CheckpointRow, values: Sequence[ValueRow]) -> None:
        """The checkpoint joins the turn and becomes the head of its namespace."""
        self.checkpoints[checkpoint.ns, checkpoint.id] = checkpoint
        self.channel_values.update({(value.ns, value.channel, value.version): value for value in values})
        self.heads[checkpoint.ns] = checkpoint.id

    def put_writes(self, rows: Sequence[WriteRow], *, replace: bool) -> None:
        """The writes join the turn; one that is already there is kept unless `replace`."""
        for row in rows:
            written = self.writes.setdefault((row.ns, row.id), {})
            if replace or (row.task, row.idx) not in written:
                written[row.task, row.idx] = row

    def writes_on(self, ns: str, own_id: str, stored: Iterable[WriteRow] = ()) -> list[WriteRow]:
        """The writes on top of a checkpoint: the turn's own over the stored ones."""
        merged = {(row.task, row.idx): row for row in stored}
        return list((merged | self.writes.get((ns, own_id), {})).values())

    def all_writes(self) -> list[WriteRow]:
        """The rows of all writes."""
        return [row for written in self.writes.values() for row in written.values()]

    def drop_transient_state(self) -> None:
        """Drops what only a turn that waits for an answer needs.

        These are the namespaces that no run will enter again (those of single invocations, and the manager's own as
        long as it has nothing to remember), the references to them in other namespaces' checkpoints, and the names of
        the tasks whose writes led to a checkpoint. The order of those writes is kept.
        """
        # LangGraph names the outermost graph's namespace "", and that of one invocation of a subgraph `name:task ID`.
        lasting = {ns for ns in self.heads if ":" not in ns and (ns or self._remembers(ns))}
        self.heads = {ns: head for ns, head in self.heads.items() if ns in lasting}
        self.checkpoints = {key: _alone(row) for key, row in self.checkpoints.items() if row.ns in lasting}
        self.channel_values = {key: row for key, row in self.channel_values.items() if row.ns in lasting}
        self.writes = {key: self._without_tasks(*key, rows) for key, rows in self.writes.items() if key[0] in lasting}

    def _remembers(self, ns: str) -> bool:
        """Whether the namespace continues from an earlier turn, or this turn has left something in it."""
        written = [row for row in self.checkpoints.values() if row.ns == ns]
        return (
            not written
            or any(row.parent is not None for row in written)
            or any(row.ns == ns for row in self.channel_values.values())
            or any(key[0] == ns for key in self.writes)
        )

    def _without_tasks(
        self, ns: str, own_id: str, rows: dict[tuple[str, int], WriteRow]
    ) -> dict[tuple[str, int], WriteRow]:
        """The writes on a checkpoint, numbered in their order, if all of them are known and no more will follow."""
        older = self.prefetched.get(ns)
        prefetched = older is not None and older.head.checkpoint.id == own_id and not older.head.writes
        if self.heads.get(ns) == own_id or not (prefetched or (ns, own_id) in self.checkpoints):
            return rows
        return {("", idx): row._replace(task="", idx=idx, path="") for idx, row in enumerate(in_order(rows.values()))}


def stored_id(address: str | None, message_id: str) -> str:
    """The ID under which a conversation has a message that came by the address (None: by its own device's)."""
    return message_id if address is None else f"{address}{SEPARATOR}{message_id}"


_open: ContextVar[OpenTurn | None] = ContextVar("moorline_open_turn", default=None)


def open_turn(device_id: str) -> OpenTurn | None:
    """The turn that the running code belongs to, if it is this device's."""
    turn = _open.get()
    return turn if turn is not None and turn.device_id == device_id else None


class running:  # noqa: N801 - see `damage.readable`
    """While the block runs, what it and the tasks it starts write to the turn's device joins the turn."""

    def __init__(self, turn: OpenTurn) -> None:
        self._turn = turn

    def __enter__(self) -> None:
        self._token = _open.set(self._turn)

    def __exit__(self, *raised: object) -> None:
        _open.reset(self._token)


def _alone(row: CheckpointRow) -> CheckpointRow:
    """The checkpoint without the IDs of the checkpoints around it, which are gone."""
    if '"parents"' not in row.metadata:
        return row
    metadata = load_json(row.metadata)
    metadata.pop("parents", None)
    return row._replace(metadata=pack_json(metadata))
