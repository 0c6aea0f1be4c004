"""Commits: what the database is told of a turn that ends, and what it answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from moorline_checkpoint.packing import pack_json
from moorline_checkpoint.turn import OpenTurn, TurnRecord


class Outcome(NamedTuple):
    """One commit of a batch."""

    turn: OpenTurn
    outcome: str
    """As `outcome_of` writes it."""


class Committed(NamedTuple):
    """What became of it."""

    outcome: str
    ended: str | None
    """The sessions that ended with the turn, for `tell_ended`."""


def outcome_of(turn: OpenTurn, record: TurnRecord) -> str:
    """How a turn ends, as JSON: everything but its checkpoints, values and writes."""
    outcome: dict[str, Any] = {
        "turn_no": turn.turn_no,
        "status": "done" if record.interrupt is None else "interrupted",
        "agent": record.agent,
        "reply": record.reply,
        "handoffs": list(record.handoffs),
        "usage": dict(record.usage),
        # One column holds what a program gets beside the reply: what was asked, or the answer.
        "interrupt": record.interrupt if record.output is None else {"output": record.output},
        "run": None if record.run is None else asdict(record.run),
        "attempts": turn.attempts,
        "started_at": turn.now.isoformat(),
        "holder": turn.holder,
        "active_agent": turn.active_agent,
        "lock_taken": turn.lock_taken,
        "session_ttl": turn.session_ttl,
        "heads": turn.heads,
        "messages": [turn.stored_id(message.id) for message in turn.messages],
    }
    if turn.changes:
        outcome["changes"] = turn.changes
    if turn.ended:
        outcome["ended"] = [{"agent": agent, "why": why} for agent, why in turn.ended]
    if turn.call_ttl is not None or turn.session_until is not None:
        until = turn.session_until
        outcome |= {"call_ttl": turn.call_ttl, "session_until": None if until is None else until.isoformat()}
    if turn.facts.changes:
        outcome["facts"] = turn.facts.changes
    if turn.journaled:
        outcome["journal_of"] = turn.stored_id(turn.messages[0].id)
    return pack_json(outcome)
