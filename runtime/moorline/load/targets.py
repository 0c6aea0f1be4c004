"""What a load test sends messages to: a runtime in this process, in others, behind HTTP, or something of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from moorline.context import TurnContext
from moorline.runtime import Moorline


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, as whoever sent the message got it."""

    text: str
    turn_no: int
    """The number of the turn on its device; messages that were answered together have the same."""


@dataclass(frozen=True, kw_only=True)
class StoredTurn:
    """A turn, as it is kept."""

    message_ids: Sequence[str]
    texts: Sequence[str]
    reply: str
    agent: str | None = None


class Target(Protocol):
    """What is put under load."""

    async def new_device(self) -> str:
        """The ID of a device that nobody has used."""

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        """Delivers a message and waits for its reply. Raises `MoorlineError`; if it is `retryable`, the message is
        delivered again."""

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        """All turns of a device that are kept, oldest first."""

    async def erase(self, device_id: str) -> None:
        """Removes what the load test has left."""


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """A `Moorline` in this process."""

    moorline: Moorline

    async def new_device(self) -> str:
        return str(uuid4())

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        context = TurnContext(device_id=device_id, message_id=message_id, on_cancel="release")
        reply = await self.moorline.run(text, context)
        return Answer(text=str(reply), turn_no=reply.turn_no)

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        return [
            StoredTurn(
                message_ids=entry.message_ids,
                texts=entry.texts,
                reply=entry.record.reply,
                agent=entry.record.agent,
            )
            for entry in await self.moorline.transcript(device_id)
        ]

    async def erase(self, device_id: str) -> None:
        await self.moorline.erase(device_id)


async def warm_up(target: Target) -> None:
    """Has one message answered that is not counted, so that nothing is imported or connected for the first time later.
    Raises what keeps it from being answered."""
    device_id = await target.new_device()
    try:
        await target.send(device_id, "Load test, a first message that is not counted.", uuid4().hex)
    finally:
        await target.erase(device_id)


def in_process(moorline: Moorline) -> Target:
    """An open `Moorline` as what is put under load."""
    return InProcess(moorline=moorline)
