"""An agent's history: how it grows in the graph's state, and what is open in it.

What a model is shown of it is the business of `window`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, dropwhile, takewhile
from types import MappingProxyType
from typing import Any, Literal

from langgraph.channels.delta import DeltaChannel

from moorline_agents.files import text_of
from moorline_agents.messages import FileNote, Message, ToolCall
from moorline_agents.stopping import STOPPED

HISTORY_MESSAGES = 240
"""How many messages of all kinds an agent keeps in its state, besides what belongs to the message being answered, if
`window.outgrown` leaves so many."""

SNAPSHOT_UPDATES = 30
"""A history is stored as deltas; after this many of them it is stored whole, so that reads stay short."""

Closing = Literal["not_answered", "expired", "outdated"]
"""Why a question was closed: the person said something else, it expired, or what asked it has changed since."""

NOT_ANSWERED = "not done; the person said something else instead of answering"

CLOSED: Mapping[Closing, str] = MappingProxyType(
    {
        "not_answered": NOT_ANSWERED,
        "expired": "not done; the question expired before it was answered",
        "outdated": "not done; the question was closed, because what asked it has changed since",
    }
)
"""What a model is told of a call that will never have a result."""


def extend_history(history: list[Message], updates: Sequence[Sequence[Message]]) -> list[Message]:
    """The reducer of a history: appends, and forgets all but the last `HISTORY_MESSAGES`, though never the message that
    is being answered (the person's last, with those right before it) nor what followed it.

    Applying updates one by one or all at once gives the same list, as `DeltaChannel` demands: where the kept part
    begins only ever moves forward. Any other rule belongs in `window`.
    """
    said = [*history, *chain.from_iterable(updates)]
    most = len(said) - HISTORY_MESSAGES
    return said if most <= 0 else said[min(most, being_answered(said)) :]


def history_channel() -> DeltaChannel[list[Message]]:
    """A channel that keeps a history. Its updates are tuples, because LangGraph turns message dicts in a *list* into
    LangChain messages; what an `Overwrite` holds it leaves alone."""
    return DeltaChannel(extend_history, snapshot_frequency=SNAPSHOT_UPDATES)


def being_answered(history: Sequence[Message]) -> int:
    """Where the message that is being answered begins: the first of the person's last messages in a row. Without any
    message of theirs, the end."""
    position = len(history)
    while position and history[position - 1]["role"] != "user":
        position -= 1
    if not position:
        return len(history)
    while position and history[position - 1]["role"] == "user":
        position -= 1
    return position


def last_texts(history: Sequence[Message]) -> list[str]:
    """The texts of the person's last messages, up to the answer before them, with their files."""
    before = dropwhile(lambda message: message["role"] != "user", reversed(history))
    asked = takewhile(lambda message: message["role"] == "user", before)
    return [text_of(message) for message in asked][::-1]


def last_files(history: Sequence[Message]) -> list[FileNote]:
    """The files of the message that is being answered."""
    asked = history[being_answered(history) :]
    return [note for message in asked if "files" in message for note in message["files"]]


def open_calls(history: Sequence[Message]) -> list[ToolCall]:
    """The calls of the last answer that have no result yet, in order; none if somebody has spoken since."""
    results = list(takewhile(lambda message: message["role"] == "tool", reversed(history)))
    if len(results) == len(history):
        return []
    made = {result["tool_call_id"] for result in results}
    return [call for call in history[-1 - len(results)].get("tool_calls", ()) if call["id"] not in made]


def closing(
    calls: Sequence[ToolCall], why: Closing = "not_answered", ran: Mapping[str, Any] | None = None
) -> tuple[Message, ...]:
    """The results of calls that will never have one of their own; of the first the `value` of `ran`, if it did run."""
    closed = [_closed(call, CLOSED[why], why) for call in calls]
    if closed and ran is not None:
        closed[0]["content"] = json.dumps(ran["value"], ensure_ascii=False)
    return tuple(closed)


def stopped(calls: Sequence[ToolCall]) -> tuple[Message, ...]:
    """The results of calls that were not made because the person stopped the turn."""
    return tuple(_closed(call, STOPPED, "stopped") for call in calls)


def unanswered(call: ToolCall) -> Message:
    """The result of a call that will never have one of its own."""
    return _closed(call, CLOSED["not_answered"], "not_answered")


def _closed(call: ToolCall, error: str, code: str) -> Message:
    told = {"error": error, "code": code}
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(told)}
