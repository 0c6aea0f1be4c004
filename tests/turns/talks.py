"""Long random conversations in which every reply says everything that its agent was shown."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, TypedDict
from zlib import crc32

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph

from moorline import Moorline, Settings
from moorline.errors import AgentError
from moorline.manager import AgentProtocol
from moorline.testing import error_reply
from moorline_agents.agent import Agent
from moorline_agents.graph_agent import GraphAgent
from moorline_agents.transport import Call, ModelReply, ModelRequest, Reply, rule_client

NAMES = ("hair", "nails", "diary")

LET_GO = "(the session ends)"
"""Is not said: the lock is cleared from outside."""

SAYINGS = (
    *(("hello", "how are you", "and now")),
    *(f"hand over to {name}" for name in NAMES),
    *("mood glad", "bye", LET_GO, "start over", "fail", "hand over to nails and fail"),
)
"""What is said: only the diary remembers a mood; on `fail` the agent that the message ends with fails."""


@dataclass(frozen=True)
class Step:
    """A message, or an erasure if there is no text, in one of the processes."""

    device: str
    said: str | None
    process: int


def conversation(seed: int, length: int, *, processes: int = 3) -> list[Step]:
    """Two devices talk, in any of the processes; now and then one of them is erased."""
    chance = Random(seed)  # noqa: S311 - repeatable, no secret
    return [
        Step(
            device=f"d{chance.randrange(2)}",
            said=None if chance.random() < 0.03 else chance.choice(SAYINGS),
            process=chance.randrange(processes),
        )
        for _ in range(length)
    ]


def checksum(shown: object) -> str:
    return f"{crc32(json.dumps(shown, sort_keys=True).encode()):08x}"


def candid(request: ModelRequest) -> Reply:
    """Does what it is told, and says its name and what it was shown."""
    words = (next(m["content"] for m in reversed(request.messages) if m["role"] == "user") or "").split()
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "hair"}),))
    told = request.messages[-1]["role"] == "tool"
    target = words[3] if words[:2] == ["hand", "over"] else request.system
    if target != request.system and not told:
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": target, "reason": "asked"}),))
    if "fail" in words:
        return error_reply(400)
    if words == ["bye"] and not told:
        return ModelReply(calls=(Call(name="end_session"),))
    return ModelReply(text=f"{request.system} was shown {len(request.messages)}: {checksum(request.messages)}")


def extended(said: Sequence[BaseMessage], updates: Sequence[Any]) -> list[BaseMessage]:
    return [*said, *(message for update in updates for message in convert_to_messages(update))]


class Diary(TypedDict, total=False):
    """Delta channels that are stored whole now and then, and plain values, one of which seldom changes."""

    messages: Annotated[list[BaseMessage], DeltaChannel(extended, snapshot_frequency=3)]
    mood: str
    pages: Annotated[int, operator.add]


def write(state: Diary) -> dict[str, Any]:
    text = str(state["messages"][-1].text)
    if "fail" in text:
        raise LookupError(text)
    mood = text.removeprefix("mood ") if text.startswith("mood ") else state.get("mood", "none")
    shown = [str(message.text) for message in state["messages"]]
    reply = f"diary, page {state.get('pages', 0)}, mood {mood}, has {len(shown)}: {checksum(shown)}"
    return {"messages": [("assistant", reply)], "pages": 1} | ({"mood": mood} if text.startswith("mood ") else {})


def agents() -> list[AgentProtocol]:
    """Two agents of the kit, and a graph of the user's own."""
    diary = StateGraph(Diary).add_node("write", write).add_edge(START, "write").compile()
    return [
        *(Agent(name=name, description=name, instructions=name) for name in NAMES[:2]),
        GraphAgent(name="diary", description="diary", graph=diary),
    ]


def process(dsn: str, *, keep_turns: int = 1000) -> Moorline:
    """A new runtime, which has nothing cached yet."""
    settings = Settings(database_url=dsn, keep_turns=keep_turns, model_retries=0)
    return Moorline(settings, agents=agents(), client=lambda: rule_client(candid))


@asynccontextmanager
async def processes(dsn: str, number: int, *, keep_turns: int = 1000) -> AsyncIterator[list[Moorline]]:
    """Runtimes that stay open and keep what they have cached."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(process(dsn, keep_turns=keep_turns)) for _ in range(number)]


async def take(moorline: Moorline, step: Step) -> str:
    """The outcome of a step."""
    if step.said is None:
        await moorline.erase(step.device)
        return "erased"
    if step.said == LET_GO:
        await moorline._backend.saver.clear_session_lock(step.device)
        return "let go"
    try:
        return str(await moorline.run(step.said, {"device_id": step.device}))
    except AgentError as error:
        return type(error).__name__


async def told_coldly(dsn: str, steps: Sequence[Step], *, keep_turns: int = 1000) -> list[str]:
    """The outcomes of the steps, each taken in a process with nothing cached."""
    replies = []
    for step in steps:
        async with process(dsn, keep_turns=keep_turns) as moorline:
            replies.append(await take(moorline, step))
    return replies


async def told_warmly(dsn: str, steps: Sequence[Step], number: int, *, keep_turns: int = 1000) -> list[str]:
    """The outcomes of the steps in processes that stay."""
    async with processes(dsn, number, keep_turns=keep_turns) as moorlines:
        return [await take(moorlines[step.process % number], step) for step in steps]


def differences(
    one: Sequence[str], other: Sequence[str], steps: Sequence[Step]
) -> Iterator[tuple[int, Step, str, str]]:
    for place, (step, mine, theirs) in enumerate(zip(steps, one, other, strict=True)):
        if mine != theirs:
            yield place, step, mine, theirs
