"""An agent's history: how it grows in the graph's state, and how much of it a model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, dropwhile, takewhile

from langgraph.channels.delta import DeltaChannel

from moorline_agents.messages import Message, ToolCall

HISTORY_USER_MESSAGES = 40
"""How many of the person's earlier messages a model is shown, with the answers and calls that followed them; the whole
conversation is in `conversation_turns`."""

HISTORY_MESSAGES = 120
"""How many messages of all kinds an agent keeps in its state; where tools are called often, they include fewer of the
person's messages."""

SNAPSHOT_UPDATES = 30
"""A history is stored as deltas; after this many of them it is stored whole, so that reads stay short."""


NOT_ANSWERED = "not answered; the person wrote instead"
"""What a model is told of a call that will never have a result."""


def extend_history(history: list[Message], updates: Sequence[Sequence[Message]]) -> list[Message]:
    """The reducer of a history: appends, and forgets all but the last `HISTORY_MESSAGES`.

    Applying updates one by one or all at once gives the same list, as `DeltaChannel` demands. Any rule that depends on
    more than the number of messages belongs in `shown`.
    """
    return [*history, *chain.from_iterable(updates)][-HISTORY_MESSAGES:]


def history_channel() -> DeltaChannel[list[Message]]:
    """A channel that keeps a history. Its updates are tuples, because LangGraph turns message dicts in a *list* into
    LangChain messages."""
    return DeltaChannel(extend_history, snapshot_frequency=SNAPSHOT_UPDATES)


def shown(history: Sequence[Message]) -> list[Message]:
    """The part of a history that a model is shown: the person's last `HISTORY_USER_MESSAGES` messages, with all that
    followed them. It starts with the first of these, so no tool result is orphaned."""
    asked = [position for position, message in enumerate(history) if message["role"] == "user"]
    return list(history[asked[-HISTORY_USER_MESSAGES:][0] :]) if asked else []


def last_texts(history: Sequence[Message]) -> list[str]:
    """The texts of the person's last messages, up to the answer before them."""
    before = dropwhile(lambda message: message["role"] != "user", reversed(history))
    asked = takewhile(lambda message: message["role"] == "user", before)
    return [message["content"] or "" for message in asked][::-1]


def open_calls(history: Sequence[Message]) -> list[ToolCall]:
    """The calls of the last answer that have no result yet, in order; none if somebody has spoken since."""
    results = list(takewhile(lambda message: message["role"] == "tool", reversed(history)))
    if len(results) == len(history):
        return []
    return list(history[-1 - len(results)].get("tool_calls", ()))[len(results) :]


def model_answers(history: Sequence[Message]) -> int:
    """How many answers the model has given since the person last spoke."""
    count = 0
    for message in reversed(history):
        if message["role"] == "user":
            break
        count += message["role"] == "assistant"
    return count
