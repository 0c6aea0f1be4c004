"""What must be observed when a recorded conversation is played, derived from the record alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import cast

from moorline.replay.conversations import Conversation
from moorline.replay.recorded import REASON, answers_of, handing_over, result_of
from moorline_agents.briefing import briefed, of_hand_over
from moorline_agents.history import extend_history
from moorline_agents.messages import Message
from moorline_agents.run import HandedOver
from moorline_agents.transport import Call
from moorline_agents.window import outgrown, window

UNBOUNDED = sys.maxsize
"""The tokens of a request in a replay: how many there are in what, is no part of the record."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must be observed in one turn: the agents asked, each with exactly the messages it must be shown first."""

    agent: str
    reply: str
    shown: dict[str, list[Message]]
    came_back: bool
    """Whether the agent answered earlier, and another one answered since."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was observed in one turn; all of it JSON, so that it can come from another process."""

    agent: str | None
    reply: str
    holder: str | None
    shown: dict[str, list[Message]]


def expectations(conversation: Conversation) -> list[Expected]:
    """What must be observed in each turn, in order."""
    histories: dict[str, list[Message]] = {}
    holder: str | None = None
    expected = []
    for turn in conversation.recorded():
        said: Message = {"role": "user", "content": turn.message}
        came_back = holder is not None and turn.agent != holder and turn.agent in histories
        due: dict[str, list[Message]] = {}
        asked = said
        if holder is not None and holder != turn.agent:
            asked = {**said, "briefing": of_hand_over(HandedOver(by=holder, reason=REASON, note=""))}
            before = _kept(histories[holder])
            due[holder] = _shown([*before, said])
            handed: object = {"handed_over_to": turn.agent}
            histories[holder] = extend_history(before, [[said, *_exchange([handing_over(turn)], [handed])]])
        known = _kept(histories.get(turn.agent, []))
        due[turn.agent] = _shown([*known, asked])
        results = iter(map(result_of, turn.calls))
        exchanges = [_exchange(calls, islice(results, len(calls))) for calls in answers_of(turn)]
        reply: Message = {"role": "assistant", "content": turn.reply}
        histories[turn.agent] = extend_history(known, [[asked, *chain.from_iterable(exchanges), reply]])
        holder = turn.agent
        expected.append(Expected(agent=turn.agent, reply=turn.reply, shown=due, came_back=came_back))
    return expected


def _kept(history: list[Message]) -> list[Message]:
    """What an agent keeps of its history when its part of a turn begins."""
    cut = outgrown(history, UNBOUNDED)
    return history if cut is None else list(cut.kept)


def _shown(history: Sequence[Message]) -> list[Message]:
    return without_ids(list(map(briefed, window(history, UNBOUNDED).messages)))


def mismatches(expected: Expected, observed: Observed) -> list[str]:
    """What is wrong with a played turn, one sentence per mismatch; texts are counted, not quoted."""
    wrong = []
    if observed.reply != expected.reply:
        wrong.append("the reply is not the recorded one")
    if observed.agent != expected.agent:
        wrong.append(f"{observed.agent} answered, {expected.agent} was recorded")
    if observed.holder != expected.agent:
        wrong.append(f"the lock names {observed.holder}, {expected.agent} was recorded")
    if set(observed.shown) != set(expected.shown):
        wrong.append(f"the agents {sorted(observed.shown)} were asked, not {sorted(expected.shown)}")
    for agent in sorted(set(observed.shown) & set(expected.shown)):
        seen, due = without_ids(observed.shown[agent]), expected.shown[agent]
        if seen != due:
            same = next((i for i, pair in enumerate(zip(seen, due, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(seen), len(due)) if same is None else same
            wrong.append(
                f"the model of {agent} was shown {len(seen)} messages, {len(due)} were due; they differ from "
                f"message {at + 1} on"
            )
    return wrong


def without_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages without the IDs of their tool calls, which a model makes up each time."""
    bare = []
    for message in messages:
        kept = {key: value for key, value in message.items() if key not in {"tool_calls", "tool_call_id"}}
        if "tool_calls" in message:
            kept["tool_calls"] = [{"function": dict(made["function"])} for made in message["tool_calls"]]
        bare.append(cast("Message", kept))
    return bare


def _exchange(calls: Sequence[Call], results: Iterable[object]) -> list[Message]:
    """An answer that makes these calls, and their results."""
    made = [
        {"id": str(place), "function": {"name": call.name, "arguments": call.arguments}}
        for place, call in enumerate(calls)
    ]
    answer = cast("Message", {"role": "assistant", "content": None, "tool_calls": made})
    contents = (json.dumps(each, ensure_ascii=False) for each in results)
    given = [Message(role="tool", tool_call_id=str(place), content=each) for place, each in enumerate(contents)]
    return [answer, *given]
