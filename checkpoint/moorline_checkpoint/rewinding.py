"""Rewinding: a conversation goes on as after an earlier turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from moorline_checkpoint.ending import tell_ended
from moorline_checkpoint.errors import TurnNotKept
from moorline_checkpoint.packing import load_json, pack_json, pack_text, parse_json, unpack_text

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

_MOST = 2**63  # what the database can count to

_REFUSED = {
    "unknown": "The conversation has no turn {turn_no}, or that turn was rewound itself: see the transcript.",
    "asked": "Turn {turn_no} stopped to ask, and its question cannot be asked again: rewind to the turn before it.",
    "gone": (
        "What turn {turn_no} left is no longer kept: of each conversation the last turns are, at least as many as "
        "MOORLINE_KEEP_TURNS says."
    ),
}


@dataclass(frozen=True, kw_only=True)
class LaterEffect:
    """What a tool did in a turn that came after the one to which a conversation was rewound."""

    turn_no: int
    agent: str | None
    name: str
    """The tool."""
    intent: Any
    """The arguments of the call."""
    result: Any
    """What the call returned; None if it was refused, or nobody knows whether the effect happened."""
    refused: Mapping[str, Any] | None
    """What the model was told of a call outside that was refused, or whose outcome nobody knows."""
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class Rewound:
    """A conversation was rewound."""

    turn_no: int
    """The turn after which it goes on; 0: it begins anew."""
    effects: tuple[LaterEffect, ...]
    """What tools did in later turns, in order. It stands: undo it where that is needed."""


class KeptTurn(NamedTuple):
    """A turn whose state is kept."""

    turn_no: int
    checkpoint_id: str
    """The checkpoint that stood after the turn, in the namespace that was asked for."""


async def conversation_of(database: Database, device_id: str) -> str:
    """The key of the conversation that the device leads to."""
    return unpack_text(await database.fetchval("conversation", pack_text(device_id)))


async def kept_turns(
    database: Database, conversation: str, *, keep_turns: int, namespace: str = ""
) -> Sequence[KeptTurn]:
    """The turns of a conversation to which it can be rewound, if they did not stop to ask, newest first; of the manager
    graph, or of the namespace of an agent's own graph, without those before it was first asked."""
    rows = await database.fetch("kept_turns", pack_text(conversation), keep_turns, pack_text(namespace))
    return [KeptTurn(row["turn_no"], row["checkpoint_id"]) for row in rows]


async def rewind(database: Database, conversation: str, turn_no: int, *, keep_turns: int) -> Rewound | None:
    """Rewinds a conversation, see `moorline_rewind` in the schema. None: a turn is open or a message waits, ask again.
    Raises `TurnNotKept`."""
    if isinstance(turn_no, bool) or not isinstance(turn_no, int) or not 0 <= turn_no < _MOST:
        raise TurnNotKept(_REFUSED["unknown"].format(turn_no=turn_no))
    found = load_json(await database.fetchval("rewind", pack_text(conversation), turn_no, keep_turns))
    outcome = found["outcome"]
    if outcome in _REFUSED:
        raise TurnNotKept(_REFUSED[outcome].format(turn_no=turn_no))
    if outcome != "rewound":
        return None
    database.lock_changed(conversation)
    if found["ended"]:
        tell_ended(database, pack_json(found["ended"]))
    return Rewound(turn_no=turn_no, effects=tuple(_effect(each) for each in found["effects"] if _happened(each)))


def _happened(noted: Mapping[str, Any]) -> bool:
    """Whether more came of a call than a question."""
    return bool(noted["result"] != {"asked": True})


def _arguments(intent: str) -> Any:
    """The arguments as the model wrote them, in JSON if they were not refused for being none."""
    try:
        return parse_json(intent)
    except ValueError:
        return intent


def _effect(noted: Mapping[str, Any]) -> LaterEffect:
    result = noted["result"] or {}
    return LaterEffect(
        turn_no=noted["turn_no"],
        agent=noted["agent"],
        name=noted["name"],
        intent=_arguments(noted["intent"]),
        result=result.get("value"),
        refused=result.get("refused"),
        recorded_at=datetime.fromisoformat(noted["recorded_at"]),
    )
