"""Claims: what Begin is asked on behalf of a message, and what its answer means.

Reading an answer fails with whatever Python raises if rows are damaged; see `damage.readable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from moorline_checkpoint.errors import InvalidDeviceID
from moorline_checkpoint.files import unpack_message
from moorline_checkpoint.messages import Resume, TurnMessage
from moorline_checkpoint.packing import load_json, parse_json, unpack_json, unpack_text
from moorline_checkpoint.queue import Busy, Dead, Gone, Joined, QueueAnswer, Replayed, StaleResume, Waiting
from moorline_checkpoint.rows import HeadRows
from moorline_checkpoint.turn import (
    SEPARATOR,
    AskedQuestion,
    JournalEntry,
    OpenTurn,
    RunStart,
    TurnRecord,
    UnfinishedEffect,
)

if TYPE_CHECKING:
    from asyncpg import Record


class Claim(NamedTuple):
    """One claim of a batch, in the order in which the statement takes the columns."""

    device_id: str
    message_id: str | None
    claim_id: UUID
    text: str | None
    resume: str | None
    values: str | None
    on_busy: str
    known: str
    person: str | None = None
    joins: str | None = None


class Claimed(NamedTuple):
    """The answer to a claim, with the heads that came with it, by namespace."""

    answer: dict[str, Any]
    prefetched: dict[str, HeadRows]


_PLAIN: Mapping[str, QueueAnswer] = {"waiting": Waiting(), "joined": Joined(), "gone": Gone()}


def answer_to(claim: Claim, found: dict[str, Any], prefetched: Mapping[str, HeadRows]) -> OpenTurn | QueueAnswer:
    """What the answer to a claim means; `prefetched` are the heads that a claimed turn starts from."""
    match found["outcome"]:
        case "replayed":
            return Replayed(record=record_in(found), other_text=found["other_text"], notice=found["notice"])
        case "waiting" | "joined" | "gone" as outcome:
            return _PLAIN[outcome]
        case "busy" | "full" as outcome:
            return Busy(full=outcome == "full", retry_after=found["retry_after"])
        case "stale_resume":
            return StaleResume(resume=Resume(**unpack_json(found["resume"])))
        case "other_spelling":
            raise InvalidDeviceID(
                "Another spelling of this device ID is in use, which the database takes for the same."
            )
        case "dead":
            return Dead(error=found["error"])
    return turn_in(claim, found, prefetched)


def turn_in(claim: Claim, found: dict[str, Any], prefetched: Mapping[str, HeadRows]) -> OpenTurn:
    """The claimed turn."""
    address = found.get("address")
    prefix = "" if address is None else f"{address}{SEPARATOR}"
    return OpenTurn(
        device_id=conversation_in(claim, found),
        claim_id=claim.claim_id,
        fence=found["fence"],
        turn_no=found["turn_no"],
        messages=tuple(_message(message, prefix) for message in found["messages"]),
        resume=resume_in(unpack_json(found["resume"])),
        values=dict(unpack_json(found["values"])),
        attempts=found["attempts"],
        now=datetime.fromisoformat(found["now"]),
        holder=found["active_agent"],
        active_agent=found["active_agent"],
        heads=_heads(found["heads"]),
        prefetched=prefetched,
        journal=tuple(JournalEntry(**unpack_json(entry)) for entry in found["journal"]),
        journaled=bool(found["journal"]),
        spent=unpack_json(found.get("usage") or {}),
        address=address,
        notice=found.get("notice"),
        stopped=found.get("stopped", False),
        run=None if found.get("run") is None else RunStart(**unpack_json(found["run"])),
        unfinished=tuple(UnfinishedEffect(**unpack_json(effect)) for effect in found["unfinished"] or ()),
    )


def _message(stored: Mapping[str, str], prefix: str) -> TurnMessage:
    text, files = unpack_message(stored["text"])
    return TurnMessage(id=unpack_text(stored["id"]).removeprefix(prefix), text=text, files=files)


def conversation_in(claim: Claim, found: dict[str, Any]) -> str:
    """The conversation that was claimed."""
    conversation: str = found.get("conversation", claim.device_id)
    return conversation


def _heads(stored: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(head, str) for head in stored.values()):
        raise TypeError
    return dict(stored)


def parsed(answer: str | None) -> dict[str, Any]:
    """The answer to a claim. One that is nested too deeply, or was made of rows that are gone, has nothing in it."""
    try:
        return {"outcome": "claimed"} if answer is None else dict(parse_json(answer))
    except RecursionError:
        return {"outcome": "claimed"}


def question_in(row: Record) -> AskedQuestion:
    """The question that a row of `question` is."""
    run = load_json(row["run"] or "null")
    attempts = groupby(load_json(row["attempts"] or "[]"), itemgetter("message_id"))
    return AskedQuestion(
        interrupt_id=load_json(row["interrupt"])["id"],
        run=None if run is None else RunStart(**run),
        attempts=tuple(
            tuple(JournalEntry(**unpack_json(each["entry"])) for each in entries) for _, entries in attempts
        ),
    )


def resume_in(stored: Mapping[str, Any] | None) -> Resume | None:
    """The stored answer to an interrupt."""
    return None if stored is None else Resume(**stored)


def record_in(found: Mapping[str, Any]) -> TurnRecord:
    """The record of a committed turn."""
    beside = unpack_json(found["interrupt"]) or {}
    return TurnRecord(
        turn_no=found["turn_no"],
        agent=found["agent"],
        reply=unpack_text(found["reply"]),
        handoffs=tuple(found["handoffs"]),
        usage=dict(found["usage"]),
        interrupt=beside if "id" in beside else None,
        output=beside.get("output"),
    )
