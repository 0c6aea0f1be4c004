"""The workers' model and agents: plain rules; every reply says what the model was shown.

A message is `<message ID> <verb> [argument]`. A reply lists the conversation as the model was shown it, so each reply
is a read that can be compared with what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

from moorline_agents.agent import Agent
from moorline_agents.briefing import parted
from moorline_agents.control import END_SESSION, HAND_OVER, ROUTE
from moorline_agents.messages import Message
from moorline_agents.scheduling.agent import scheduling
from moorline_agents.scheduling.booking import Limits
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest

ECHO, SCHEDULING = "echo", "scheduling"

SERVICE = "Slot"
"""What is booked; it takes fifteen minutes of one provider."""

DOER = {"ring": ECHO, "chime": ECHO, "book": SCHEDULING}
"""By verb, the agent that has the tool of that name."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a reply says."""

    by: str
    """The agent."""
    seen: tuple[tuple[str, str], ...]
    """For each message that was shown its ID and the digest of the answer to it, "" if it had none."""
    did: str | None
    """The result of the message's tool call."""
    whole: bool
    """Whether each tool call that was shown had its result."""

    @classmethod
    def of(cls, reply: str) -> Read:
        """Raises `ValueError` or `KeyError` for a reply that is not this model's."""
        told = json.loads(reply)
        seen = tuple((message, answer) for message, answer in told["seen"])
        return cls(by=told["by"], seen=seen, did=told["did"], whole=told["whole"])


def digest(reply: str) -> str:
    """A short digest, different for different replies."""
    return sha256(reply.encode()).hexdigest()[:12]


def routed(text: str) -> str:
    """The agent that the model picks for a message."""
    return SCHEDULING if text.split()[1] == "book" else ECHO


def ends_session(text: str) -> bool:
    """Whether the agent releases the session after this message."""
    return text.split()[1] == "bye"


def rules(request: ModelRequest) -> ModelReply:
    """What the model says."""
    begins = [place for place, message in enumerate(request.messages) if message["role"] == "user"]
    told = _told(request)
    verb, *arguments = told.split()[1:]
    if ROUTE in request.functions:
        return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": routed(told)}),))
    me = SCHEDULING if "book" in request.functions else ECHO
    wanted = DOER.get(verb, arguments[0] if verb == "pass" else me)
    if wanted != me:
        return ModelReply(calls=(Call(name=HAND_OVER, arguments={"agent": wanted, "reason": "asked"}),))
    results = [message for message in request.messages[begins[-1] :] if message["role"] == "tool"]
    if not results and verb in ("ring", "chime"):
        return ModelReply(calls=(Call(name=verb, arguments={"token": token(request)}),))
    if not results and verb == "book":
        return ModelReply(calls=(Call(name="book", arguments={"service": SERVICE, "start": arguments[0]}),))
    if not results and verb == "bye":
        return ModelReply(calls=(Call(name=END_SESSION),))
    read = {
        "by": me,
        "seen": [_seen(request.messages[begin:end]) for begin, end in _spans(begins, len(request.messages))],
        "did": _came_to(results[-1]) if results else None,
        "whole": _calls(request.messages) == _results(request.messages),
    }
    return ModelReply(text=json.dumps(read))


def token(request: ModelRequest) -> str:
    """The ID of the message that is being answered; of merged ones, the last."""
    return _told(request).split()[0]


class Token(BaseModel):
    """The argument of an outside effect: the message for which it happens."""

    token: str


def agents(*, outside: Callable[[str, str, str, bool], None]) -> Sequence[Agent]:
    """An echo agent that keeps the session, with two tools that act outside the database, and the shipped scheduling
    agent.

    When one of the tools acts, `outside` is called with the device, the message, the idempotency key, and whether the
    tool is idempotent.
    """

    @tool(effect="outside")
    async def ring(arguments: Token, context: ToolContext) -> dict[str, str]:
        """Rings once."""
        outside(context.device_id, arguments.token, context.idempotency_key, False)
        return {"status": "rung"}

    @tool(effect="outside", idempotent=True)
    async def chime(arguments: Token, context: ToolContext) -> dict[str, str]:
        """Chimes; doing it again under the same key does nothing more."""
        outside(context.device_id, arguments.token, context.idempotency_key, True)
        return {"status": "chimed"}

    echo = Agent(name=ECHO, description="everything else", instructions="Echo.", tools=(ring, chime))
    return echo, scheduling(limits=Limits(per_day=100_000), confirm=False)


def _told(request: ModelRequest) -> str:
    return request.said[-1]


def _spans(begins: Sequence[int], end: int) -> list[tuple[int, int]]:
    return list(zip(begins, [*begins[1:], end], strict=True))


def _seen(part: Sequence[Message]) -> tuple[str, str]:
    """A message's ID and the digest of the last answer to it."""
    said = [message["content"] for message in part if message["role"] == "assistant" and message["content"]]
    return parted(part[0]["content"] or "")[1].split()[0], digest(said[-1]) if said else ""


def _came_to(result: Message) -> str:
    told: Any = json.loads(parted(result["content"] or "null")[1])
    if "error" in told:
        return "refused"
    if "appointment" in told:
        return f"{told['status']} {told['appointment']['reference']}"
    return str(told.get("status", "done"))


def _calls(messages: Sequence[Message]) -> list[str]:
    return [call["id"] for message in messages for call in message.get("tool_calls", ())]


def _results(messages: Sequence[Message]) -> list[str]:
    return [message["tool_call_id"] for message in messages if message["role"] == "tool"]
