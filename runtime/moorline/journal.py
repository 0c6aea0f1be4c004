"""The journal of a turn in the database: effects happen once, however often the turn has to run.

A rerun is given those answers of the model that called tools, so that it makes the same calls in the same order, and
the result of each call that had an effect, instead of making that call again. A `database` effect commits together with
its entry; for an `outside` effect, the intent is journaled before the call and the result after it.

A tool may stop to ask. The turn that brings the answer runs it again: the same call, under the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

from langgraph.errors import GraphInterrupt

from moorline.decisions import DECIDED, TURN_FAILED
from moorline.errors import AgentError
from moorline_agents.journal import Admit
from moorline_agents.messages import Message
from moorline_agents.questions import UnfitAnswer
from moorline_agents.tools import Effect, Tool, ToolContext, ToolRefused, ToolTimedOut
from moorline_agents.unfinished import did_nothing, unknown_outcome
from moorline_checkpoint.errors import TransactionTooLong
from moorline_checkpoint.turn import JournalEntry, OpenTurn, RunStart
from moorline_checkpoint.turns import Turns

_ASKED: dict[str, Any] = {"asked": True}
"""The result of a call that stopped to ask."""


class TurnJournal:
    """Implements `moorline_agents.journal.Journal` for one claimed turn."""

    def __init__(self, *, turn: OpenTurn, turns: Turns) -> None:
        self._turn = turn
        self._turns = turns
        self._left = list(turn.journal)
        self._durable = len(turn.journal)
        self._pending: list[JournalEntry] = []
        self._read = 0
        """How many entries say what the message is to the question before it. They are none of the run that goes on."""
        self._asked_at: int | None = None
        """The place of the outside call that stopped to ask."""

    @property
    def _run(self) -> RunStart:
        return self._turn.run or RunStart(message_id=self._turn.stored_id(self._turn.messages[0].id), places=0)

    def run_so_far(self) -> RunStart:
        """What the turn that brings the answer to this turn's question has to know."""
        places = self._durable + len(self._pending) if self._asked_at is None else self._asked_at
        return replace(self._run, places=self._run.places + places - self._read)

    @property
    def rerunning(self) -> bool:
        return bool(self._left)

    def begins_with(self) -> str | None:
        return self._left[0].agent if self._left else None

    def recall(self, *asked: str) -> Message | None:
        entry = self._next("answer", *asked)
        self._read += entry is not None and DECIDED in asked
        return None if entry is None else cast("Message", entry.intent)

    def recalls(self, *asked: str) -> bool:
        return bool(self._left) and self._left[0].kind == "answer" and self._left[0].name in asked

    def forget(self) -> None:
        self._left.clear()

    def note(self, asked: str, answer: Message) -> None:
        agent = asked.partition(".")[0]
        self._read += asked == DECIDED
        self._pending.append(JournalEntry(kind="answer", agent=agent, name=asked, intent=answer))

    async def perform(self, tool: Tool, arguments: str, context: ToolContext, admit: Admit | None = None) -> Any:
        effect = self._effect_of(tool)
        if effect == "none":
            arguments = arguments if admit is None else await admit(arguments)
            with _in_time(tool):
                return await tool.call(arguments, context)
        place = self._durable - len(self._left)
        earlier = self._next(effect, tool.name) or self._made_before(tool)
        if earlier is not None and earlier.result is not None and earlier.result != _ASKED:
            self._turn.facts.add(earlier.result.get("facts", ()))
            return _given(earlier.result)
        if earlier is not None:
            arguments = earlier.intent
        elif admit is not None:
            arguments = await self._admitted(admit, tool, arguments, context)
        if effect == "database":
            return await self._in_transaction(tool, arguments, context)
        if earlier is None:
            place = await self._note_intent(tool, arguments, context)
        elif earlier.result is None and not tool.idempotent:
            return await self._settle(place, _unknown(tool, "the process died before its outcome was known"))
        return await self._outside(tool, arguments, context, place)

    def _effect_of(self, tool: Tool) -> Effect:
        """Its effect, but `outside` if it had that in the earlier run, whatever its source, if that can be reached at
        all, says of it now."""
        left = self._left[0] if self._left else None
        had = left is not None and (left.kind, left.name) == ("outside", tool.name)
        return "outside" if had and tool.effect == "none" else tool.effect

    async def _admitted(self, admit: Admit, tool: Tool, arguments: str, context: ToolContext) -> str:
        try:
            return await admit(arguments)
        except ToolRefused as refusal:
            # A rerun must not do what the model was told is not done.
            self._pending.append(_entry(tool, arguments, context, {"refused": refusal.shown()}))
            raise

    async def _in_transaction(self, tool: Tool, arguments: str, context: ToolContext) -> Any:
        before = len(self._turn.facts.changes)
        try:
            with _in_time(tool):
                async with self._turns.tool_transaction(self._turn) as transaction:
                    given = replace(context, transaction=transaction.block)
                    result = {"value": await tool.call(arguments, given)}
                    result |= self._facts(before)
                    await transaction.commit(self._durable, [*self._pending, _entry(tool, arguments, context, result)])
        except GraphInterrupt:
            del self._turn.facts.changes[before:]
            raise
        except ToolRefused as refusal:
            del self._turn.facts.changes[before:]
            # Rolled back, but remembered: a rerun must not succeed after the model was told that the call failed.
            self._pending.append(_entry(tool, arguments, context, {"refused": refusal.shown()}))
            raise
        self._noted()
        self._durable += 1
        return result["value"]

    async def _note_intent(self, tool: Tool, arguments: str, context: ToolContext) -> int:
        """Journals that the tool is about to run, and returns the position of the entry."""
        async with self._turns.transaction(self._turn) as transaction:
            await transaction.note(self._durable, [*self._pending, _entry(tool, arguments, context, None)])
        self._noted()
        self._durable += 1
        return self._durable - 1

    async def _outside(self, tool: Tool, arguments: str, context: ToolContext, place: int) -> Any:
        named = f"{self._turn.device_id}\n{self._run.message_id}\n{self._run.places + place - self._read}"
        key = sha256(named.encode()).hexdigest()[:32]
        before = len(self._turn.facts.changes)
        try:
            with _in_time(tool):
                result = {"value": await tool.call(arguments, replace(context, idempotency_key=key))}
        except ToolTimedOut as refusal:
            result = _unknown(tool, f"it was given up after {refusal.seconds:g} s")
        except ToolRefused as refusal:
            result = {"refused": refusal.shown()}
        except UnfitAnswer:
            # The message will be as if it had never come, so nothing of it may stay.
            async with self._turns.transaction(self._turn) as transaction:
                await transaction.take_back()
            raise
        except GraphInterrupt:
            # If the process dies now, the outcome is known all the same: it only asked.
            await self._note_result(place, _ASKED)
            self._asked_at = place
            raise
        return await self._settle(place, result | self._facts(before))

    def _facts(self, before: int) -> dict[str, Any]:
        """The facts that a call has written, for its entry: a rerun that does not call it again writes them."""
        facts = self._turn.facts.changes[before:]
        return {"facts": facts} if facts else {}

    async def _settle(self, place: int, result: dict[str, Any]) -> Any:
        await self._note_result(place, result)
        return _given(result)

    async def _note_result(self, place: int, result: dict[str, Any]) -> None:
        async with self._turns.transaction(self._turn) as transaction:
            await transaction.note_result(place, result)

    def _next(self, kind: str, *names: str) -> JournalEntry | None:
        if not self._left:
            return None
        entry = self._left.pop(0)
        if entry.kind != kind or entry.name not in names:
            raise AgentError(
                f"The turn ran before and did something else then ({entry.kind} {entry.name}, now {kind} {names[0]}): "
                "its agents have changed since. Nothing more was done; see conversation_effects for what was."
            )
        return entry

    def _made_before(self, tool: Tool) -> JournalEntry | None:
        """What this call did for an earlier answer to the question, as an entry of this turn."""
        made, self._turn.made = self._turn.made, None
        if made is None or (made.kind, made.name) != (tool.effect, tool.name) or did_nothing(made.result):
            return None
        if (made.result is None and tool.idempotent) or made.result == _ASKED:
            return None
        if made.result is None:
            made = replace(made, result=_unknown(tool, TURN_FAILED))
        self._pending.append(made)
        return made

    def _noted(self) -> None:
        self._durable += len(self._pending)
        self._pending.clear()


@contextmanager
def _in_time(tool: Tool) -> Iterator[None]:
    """A tool that hangs in its transaction is given up like one that hangs elsewhere."""
    try:
        yield
    except TransactionTooLong as error:
        raise ToolTimedOut(tool.name, error.seconds) from error


def _entry(tool: Tool, arguments: str, context: ToolContext, result: dict[str, Any] | None) -> JournalEntry:
    return JournalEntry(
        kind="database" if tool.effect == "database" else "outside",
        agent=context.agent or None,
        name=tool.name,
        intent=arguments,
        result=result,
    )


def _given(result: dict[str, Any]) -> Any:
    if "refused" in result:
        raise ToolRefused.of(result["refused"])
    return result["value"]


def _unknown(tool: Tool, why: str) -> dict[str, Any]:
    return {"refused": unknown_outcome(tool.name, why, idempotent=tool.idempotent)}
