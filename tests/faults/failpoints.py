"""Where a worker is killed or stopped: around turns, model and tools, from outside the product."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar
from uuid import UUID

from moorline.errors import StaleTurn
from moorline_agents.agent import Agent
from moorline_agents.tools import Tool, ToolContext
from moorline_agents.transport import ModelReply, ModelRequest, Rules
from moorline_checkpoint.database import Database
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.queue import QueueAnswer
from moorline_checkpoint.tool_transaction import ToolTransaction
from moorline_checkpoint.transaction import TurnTransaction
from moorline_checkpoint.turn import OpenTurn, TurnRecord, open_turn
from moorline_checkpoint.turns import Turns
from tests.faults.history import Log
from tests.faults.model import token

T = TypeVar("T")

Place = Literal[
    "after_begin",
    "after_model",
    "before_effect",
    "after_effect",
    "after_journal",  # a transaction of the turn is committed: an effect with its entry, an intent, or a result
    "before_commit",
    "after_commit_before_reply",
]


@dataclass(frozen=True, kw_only=True)
class Failpoint:
    """The worker gets the signal when it passes `at` for the `hit`-th time in turns of the message (None: of any)."""

    at: Place
    message: str | None = None
    hit: int = 1
    signal: Literal["SIGKILL", "SIGSTOP"] = "SIGKILL"


class Failpoints:
    """A worker's failpoints; each fires once."""

    def __init__(self, failpoints: Sequence[Failpoint], log: Log) -> None:
        self._left = {point: point.hit for point in failpoints}
        self._log = log

    def passing(self, at: Place, message: str) -> None:
        """Called when the worker passes the point in a turn of the message."""
        for point in [point for point in self._left if point.at == at and point.message in (None, message)]:
            self._left[point] -= 1
            if not self._left[point]:
                del self._left[point]
                self._log.write("failpoint", message=message, text=at, error=point.signal)
                os.kill(os.getpid(), signal.Signals[point.signal])

    def model(self, rules: Rules, *, thinking: Callable[[], float]) -> Rules:
        """The rules, which take some time to answer and then pass a failpoint."""

        async def answer(request: ModelRequest) -> ModelReply:
            await asyncio.sleep(thinking())
            reply = rules(request)
            assert isinstance(reply, ModelReply)
            self.passing("after_model", token(request))
            return reply

        return answer

    def agent(self, agent: Agent) -> Agent:
        """The agent, whose tools with effects pass a failpoint before and after each call."""
        return replace(agent, tools=[self._tool(tool) if tool.effect != "none" else tool for tool in agent.own_tools])

    def _tool(self, tool: Tool) -> Tool:
        async def watched(arguments: Any, context: ToolContext) -> Any:
            turn = open_turn(context.device_id)
            assert turn is not None
            self.passing("before_effect", turn.messages[0].id)
            result = await tool.function(arguments, context)
            self.passing("after_effect", turn.messages[0].id)
            return result

        return replace(tool, function=watched)


class WatchedTurns(Turns):
    """Turns that log what they do and pass failpoints."""

    def __init__(self, database: Database, *, default_ttl: int, log: Log, failpoints: Failpoints) -> None:
        super().__init__(database, default_ttl=default_ttl)
        self._log = log
        self._failpoints = failpoints
        self.committing: set[tuple[str, str]] = set()
        """Device and message of each turn whose commit was begun here."""

    async def begin(self, message: IncomingMessage, *, claim_id: UUID) -> OpenTurn | QueueAnswer:
        begun = await super().begin(message, claim_id=claim_id)
        if isinstance(begun, OpenTurn):
            self._begun(begun)
        return begun

    async def begin_orphaned(self, device_id: str) -> OpenTurn | None:
        begun = await super().begin_orphaned(device_id)
        if begun is not None:
            self._begun(begun)
        return begun

    async def commit(self, turn: OpenTurn, record: TurnRecord) -> None:
        self._failpoints.passing("before_commit", turn.messages[0].id)
        self.committing |= {(turn.device_id, message.id) for message in turn.messages}
        self._log.write("commit", **_of(turn))
        try:
            await super().commit(turn, record)
        except StaleTurn:
            self._log.write("stale", **_of(turn))
            raise
        self._log.write("committed", **_of(turn))
        self._failpoints.passing("after_commit_before_reply", turn.messages[0].id)

    def transaction(self, turn: OpenTurn) -> AbstractAsyncContextManager[TurnTransaction]:
        return self._watched(super().transaction(turn), turn)

    def tool_transaction(self, turn: OpenTurn) -> AbstractAsyncContextManager[ToolTransaction]:
        return self._watched(super().tool_transaction(turn), turn)

    @asynccontextmanager
    async def _watched(self, opened: AbstractAsyncContextManager[T], turn: OpenTurn) -> AsyncIterator[T]:
        try:
            async with opened as transaction:
                yield transaction
        except StaleTurn:
            self._log.write("stale", **_of(turn))
            raise
        self._failpoints.passing("after_journal", turn.messages[0].id)

    def _begun(self, turn: OpenTurn) -> None:
        self._log.write("begun", **_of(turn), moment=turn.now.isoformat())
        self._failpoints.passing("after_begin", turn.messages[0].id)


def _of(turn: OpenTurn) -> dict[str, Any]:
    ids = [message.id for message in turn.messages]
    return {
        "device": turn.device_id,
        "message": ids[0],
        "messages": ids,
        "turn_no": turn.turn_no,
        "fence": turn.fence,
    }
