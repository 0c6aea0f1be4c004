"""Processes that link a device, or talk on it, and are hit in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

import asyncpg

from moorline import Moorline
from moorline_agents.transport import ModelReply, ModelRequest
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.people import Redeemed
from moorline_checkpoint.queue import Joined, QueueAnswer, Waiting
from moorline_checkpoint.turn import OpenTurn
from tests.faults.worker import shorten
from tests.turns.runtimes import obedient, runtime, say

Place = Literal[
    "after_redeem",  # the code is used up
    "while_waiting",  # the link stands in the device's queue
    "after_join",  # it is done, and nobody has been told
]

STORED = """
SELECT EXISTS (
    SELECT 1 FROM conversation_messages
    WHERE device_id = $1 AND message_id = $2 OR address = $1 AND message_id = $1 || chr(31) || $2)
"""
QUEUED = "SELECT EXISTS (SELECT 1 FROM conversation_messages WHERE device_id = $1 AND joins IS NOT NULL)"
RUNNING = "SELECT EXISTS (SELECT 1 FROM conversation_messages WHERE device_id = $1 AND message_id = 'x0')"


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a process is told, as JSON."""

    dsn: str
    statement_cache_size: int
    lease: float
    device: str
    code: str = ""
    """What to link the device with; otherwise it talks."""
    waits: bool = False
    """Whether it links only once the device's first message runs."""
    at: Place | None = None
    signal: Literal["SIGKILL", "SIGSTOP"] = "SIGKILL"
    messages: int = 0
    """How many messages it sends, without waiting for replies."""
    thinking: float = 0.0
    """Seconds that the first of them takes."""
    before: bool = False
    """Whether the first of them runs until a link stands behind it."""
    around: bool = False
    """Whether the others come behind the link."""

    def to_json(self) -> str:
        """Its text for the process."""
        return json.dumps(asdict(self))


def run(orders_json: str) -> None:
    """Runs a process from start to end."""
    asyncio.run(_work(Orders(**json.loads(orders_json))))


async def _work(orders: Orders) -> None:
    shorten(orders.lease)

    async def rules(request: ModelRequest) -> ModelReply:
        if str(request.messages[-1]["content"]).endswith(" x0"):
            if orders.before:
                await _seen(orders.dsn, QUEUED, orders.device)
            await asyncio.sleep(orders.thinking)
        return obedient(request)

    async with runtime(orders.dsn, rules, statement_cache_size=orders.statement_cache_size) as moorline:
        if not orders.code:
            await talk(moorline, orders.dsn, orders.device, "x", orders.messages, around=orders.around)
            return
        _watch(moorline, orders)
        if orders.waits:
            await _seen(orders.dsn, RUNNING, orders.device)
        await moorline.link(orders.device, orders.code)


async def talk(
    moorline: Moorline, dsn: str, device: str, stream: str, messages: int, *, around: bool = False
) -> list[str]:
    """Sends messages, each once the one before has its place, without waiting for replies; `around` a link, all but the
    first once that has its place, too. Returns the notices that came with these."""
    sent = []
    for number in range(messages):
        name = f"{stream}{number}"
        sent.append(asyncio.create_task(say(moorline, f"{device} {name}", name, device=device)))
        await _seen(dsn, STORED, device, name)
        if around and number == 0:
            await _seen(dsn, QUEUED, device)
    replies = await asyncio.gather(*sent)
    for number, reply in enumerate(replies):
        assert reply.endswith(f"{device} {stream}{number}"), "it is somebody else's"
    return [reply.notice for reply in replies if reply.notice is not None]


def _watch(moorline: Moorline, orders: Orders) -> None:
    """Lets the process pass its failpoint."""
    backend = moorline._require_open().backend
    redeem, begin = backend.people.redeem, backend.turns.begin

    def passing(at: Place) -> None:
        if at == orders.at:
            os.kill(os.getpid(), signal.Signals[orders.signal])

    async def redeemed(device_id: str, code: str, *, address: str | None) -> Redeemed:
        found = await redeem(device_id, code, address=address)
        passing("after_redeem")
        return found

    async def begun(message: IncomingMessage, *, claim_id: UUID) -> OpenTurn | QueueAnswer:
        answer = await begin(message, claim_id=claim_id)
        if isinstance(answer, Waiting):
            passing("while_waiting")
        elif isinstance(answer, Joined):
            passing("after_join")
        return answer

    vars(backend.people)["redeem"] = redeemed
    vars(backend.turns)["begin"] = begun


async def _seen(dsn: str, sql: str, *arguments: object) -> None:
    while not await _fetchval(dsn, sql, *arguments):  # noqa: ASYNC110 - the server cannot call us
        await asyncio.sleep(0.02)


async def _fetchval(dsn: str, sql: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        return await connection.fetchval(sql, *arguments)
    finally:
        await connection.close()
