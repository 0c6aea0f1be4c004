"""Plays recorded conversations and compares, turn by turn, what is observed with what must be."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from uuid import uuid4

from moorline.errors import MoorlineError
from moorline.replay.conversations import Conversation
from moorline.replay.expected import UNBOUNDED, Expected, Observed, expectations, mismatches
from moorline.replay.recorded import RecordedConversation
from moorline.runtime import Moorline
from moorline.settings import Settings


class Restart(StrEnum):
    """What is dropped between two turns."""

    NONE = "none"
    RUNTIME = "runtime"
    """Everything of Moorline: graphs, pools, checkpointer."""
    PROCESS = "process"
    """The whole process: each turn runs in a new one."""


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """What went wrong in a turn."""

    conversation: str
    turn: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Played:
    """A conversation that was played: how many turns, how often an agent came back, and what went wrong."""

    conversation: str
    turns: int
    came_back: int
    mismatches: tuple[Mismatch, ...]


Open = Callable[[RecordedConversation], AbstractAsyncContextManager[Moorline]]
"""Makes a runtime whose agents and model are the recorded ones."""


def opener(settings: Settings) -> Open:
    """The real runtime with recorded agents and a recorded model.

    A recorded message never starts over, an agent may call tools as often as it did, and nothing is summed up.
    """
    as_recorded = {
        "start_over": frozenset(),
        "tool_rounds": sys.maxsize,
        "prompt_tokens": UNBOUNDED,
        "summary_model": "off",
        "model_api": "chat",
    }
    played = settings.model_copy(update=as_recorded)

    def open_moorline(recorded: RecordedConversation) -> Moorline:
        return Moorline(played, agents=recorded.agents, client=recorded.client)

    return open_moorline


async def play(conversation: Conversation, *, restart: Restart, settings: Settings, open_moorline: Open) -> Played:
    """Plays one conversation on a device of its own and erases the device afterwards.

    A turn that fails is a mismatch like any other and ends the conversation. Raises `StoreUnavailable`,
    `ConfigurationError` or `SchemaMismatch` if nothing could be played at all.
    """
    device_id = f"replay-{uuid4()}"
    expected = expectations(conversation)
    wrong: list[Mismatch] = []
    try:
        if restart is Restart.NONE:
            recorded = RecordedConversation(conversation)
            async with open_moorline(recorded) as moorline:
                wrong = await _compare(
                    conversation, expected, lambda number: play_turn(moorline, recorded, number, device_id)
                )
        elif restart is Restart.RUNTIME:
            wrong = await _compare(
                conversation, expected, lambda number: _in_new_runtime(conversation, number, device_id, open_moorline)
            )
        else:
            wrong = await _compare(
                conversation, expected, lambda number: _in_new_process(conversation, number, device_id, settings)
            )
    finally:
        async with open_moorline(RecordedConversation(conversation)) as moorline:
            await moorline.erase(device_id)
    return Played(
        conversation=conversation.id,
        turns=len(expected),
        came_back=sum(turn.came_back for turn in expected),
        mismatches=tuple(wrong),
    )


async def play_turn(moorline: Moorline, recorded: RecordedConversation, number: int, device_id: str) -> Observed:
    """Plays turn `number` (from 0) on an open runtime."""
    turn = recorded.cue(number)
    reply = await moorline.run(turn.message, {"device_id": device_id, "message_id": f"turn-{number}"})
    session = await moorline.session(device_id)
    return Observed(
        agent=reply.agent, reply=str(reply), holder=session.active_agent if session else None, shown=recorded.shown
    )


async def _compare(
    conversation: Conversation, expected: list[Expected], observe: Callable[[int], Awaitable[Observed]]
) -> list[Mismatch]:
    wrong: list[Mismatch] = []
    for number, due in enumerate(expected):
        try:
            found = mismatches(due, await observe(number))
        except MoorlineError as error:
            wrong.append(Mismatch(conversation=conversation.id, turn=number + 1, what=f"the turn failed: {error}"))
            break
        wrong.extend(Mismatch(conversation=conversation.id, turn=number + 1, what=what) for what in found)
    return wrong


async def _in_new_runtime(conversation: Conversation, number: int, device_id: str, open_moorline: Open) -> Observed:
    recorded = RecordedConversation(conversation)
    async with open_moorline(recorded) as moorline:
        return await play_turn(moorline, recorded, number, device_id)


async def _in_new_process(conversation: Conversation, number: int, device_id: str, settings: Settings) -> Observed:
    job = json.dumps(
        {
            "conversation": conversation.model_dump(mode="json"),
            "number": number,
            "device_id": device_id,
            "settings": settings.model_dump(mode="json", include={"database_url", "schema_name", "data"}),
        }
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moorline.replay.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answer, complaint = await process.communicate(job.encode())
    if process.returncode != 0:
        raise MoorlineError(f"its process ended with {process.returncode}: {complaint.decode()[-500:]}")
    return Observed(**json.loads(answer))


def as_json(observed: Observed) -> str:
    """What a worker process prints for its parent."""
    return json.dumps(asdict(observed))
