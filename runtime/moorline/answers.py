"""Answers: what a message is to the question that waits, and with what its run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langgraph.types import Command

from moorline.decisions import TURN_FAILED, Decision, made_for, recalled
from moorline.errors import InvalidMessage, NothingWaits
from moorline.files import said_text
from moorline.manager import AgentProtocol, StartOver
from moorline.texts import Texts
from moorline_agents.checks import Check, checked_text
from moorline_agents.graph_questions import close_question
from moorline_agents.history import Closing, open_calls
from moorline_agents.interpreting import interpreted
from moorline_agents.model import Model
from moorline_agents.questions import Given, Question
from moorline_agents.run import RunContext
from moorline_agents.stopping import Stopped
from moorline_agents.tools import Tool
from moorline_agents.unfinished import UnfinishedCall, did_nothing, unknown_outcome
from moorline_checkpoint.messages import Resume
from moorline_checkpoint.turn import AskedQuestion, OpenTurn
from moorline_checkpoint.turns import Turns

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a run of the manager graph begins with."""

    input: Any
    given: Given | None = None
    """The answer with which it goes on, if that answers one of the kit's questions."""
    closed: Closing = "not_answered"
    """Why the question that waited was closed, if one was."""
    reply: str = ""
    """What is said if nobody is asked."""
    left: tuple[UnfinishedCall, ...] = ()
    """What the message did before, as the answer that it can no longer be."""
    ran: Mapping[str, Any] | None = None
    """What the call gave whose question was closed, if it did run for an earlier answer."""

    def of(self, context: RunContext) -> RunContext:
        """The context of the run."""
        if self.given is None and self.closed == context.closed and not self.left and self.ran is None:
            return context
        unfinished = (*context.unfinished, *self.left)
        return replace(context, given=self.given, closed=self.closed, unfinished=unfinished, ran=self.ran)


class _Asking(NamedTuple):
    """A question that waits in the graph."""

    agent: AgentProtocol
    value: Any
    tool: str | None
    """The tool that asked, if an agent of the kit did."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Decides what answers a question, and closes those that are not answered."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    turns: Turns
    agents: Mapping[str, AgentProtocol]
    """By their names and earlier names."""
    model: Model
    """For agents that have none of their own."""
    start_over: StartOver
    texts: Texts
    check_timeout: float | None
    """Seconds that an input check may take."""

    async def beginning(self, turn: OpenTurn, context: RunContext) -> Beginning:
        """What the turn's run begins with: the answer to the question that waits, or what the person says.

        Raises `NothingWaits` for a `Resume` whose question is closed or has expired, `InvalidMessage` for one that does
        not fit it, and `ModelError` if no model answers what the person means; the question then waits on.
        """
        decided = recalled(context.journal)
        if turn.resume is not None:
            return await self._resumed(turn, turn.resume, decided, context)
        texts = list(map(said_text, turn.messages))
        begins = Beginning(input={"texts": texts})
        follows = turn.follows_question
        if follows or decided is not None:
            begins = await self._answered(turn, texts, decided, context) or begins
        if follows and begins.given is None:
            await self._close(turn, begins.closed)
        if begins.given is None and self.start_over.in_any(texts):
            turn.start_anew()
        return begins

    async def _resumed(
        self, turn: OpenTurn, resume: Resume, decided: Decision | None, context: RunContext
    ) -> Beginning:
        asking = await self._asking(turn.device_id, resume.interrupt_id)
        if asking is None or _lacks(asking):
            # Whoever asked is gone since. The answer is no message that anybody else could make sense of.
            context.journal.forget()
            await self._close(turn, "outdated")
            return Beginning(input={"texts": []}, closed="outdated", reply=self.texts.closed)
        question = Question.of(asking.value)
        if question is None:
            return Beginning(input=Command(resume={resume.interrupt_id: resume.value}))
        if decided is None:
            decided = Decision(resume.interrupt_id, _fitting(question, resume, turn))
            decided.note(context.journal)
        found = await self.turns.question(turn)
        return _goes_on(turn, decided, found)

    async def _answered(
        self, turn: OpenTurn, texts: list[str], decided: Decision | None, context: RunContext
    ) -> Beginning | None:
        """The beginning of a run that goes on with what was said, or is told why the question is closed. None if that
        is just something else."""
        found = await self.turns.question(turn) if turn.follows_question else None
        asking = None if found is None else await self._asking(turn.device_id, found.interrupt_id)
        if decided is None:
            if found is None or self.start_over.in_any(texts):
                return None
            decided = await self._decided(found.interrupt_id, asking, turn, texts, context)
            decided.note(context.journal)
        elif decided.given is not None and (
            found is None or found.interrupt_id != decided.interrupt_id or asking is None or _lacks(asking)
        ):
            # An earlier run answered the question, and failed; meanwhile it was answered otherwise, or closed.
            context.journal.forget()
            return Beginning(input={"texts": texts}, left=_made(turn))
        if decided.given is not None:
            return _goes_on(turn, decided, found)
        if decided.closed == "outdated":
            turn.notice = turn.notice or "closed"
        return Beginning(input={"texts": texts}, closed=decided.closed, ran=_ran(decided, found))

    async def _decided(
        self, interrupt_id: str, asking: _Asking | None, turn: OpenTurn, texts: list[str], context: RunContext
    ) -> Decision:
        """What was said is to the question. Whatever has files is no answer."""
        if asking is None or _lacks(asking):
            return Decision(interrupt_id, closed="outdated")
        question, agent = Question.of(asking.value), asking.agent
        has_files = any(message.files for message in turn.messages)
        if question is None or has_files or (turn.holder is not None and self.agents.get(turn.holder) is not agent):
            return Decision(interrupt_id)
        if _expired(question, turn):
            return Decision(interrupt_id, closed="expired")
        text = "\n".join(texts)
        answer = question.bare(text)
        if answer is None and await self._passes(text, agent, context):
            models = [getattr(agent, "model", None) or self.model, *getattr(agent, "fallbacks", ())]
            answer = await interpreted(question, text, models=models, agent=agent.name, context=context)
        return Decision(interrupt_id, None if answer is None else Given.to(question, answer, said=text))

    async def _passes(self, text: str, agent: AgentProtocol, context: RunContext) -> bool:
        """Whether the agent's input checks let the text pass as it is, before any model sees it; what they do not is
        no answer. Raises `CheckFailed`."""
        checks: Sequence[Check] = getattr(agent, "input_checks", ())
        if not checks:
            return True
        tools = replace(context.tools, agent=agent.name)
        try:
            async with context.stop.ends():
                return await checked_text(checks, text, tools, seconds=self.check_timeout) == text
        except Stopped:
            return False

    async def _asking(self, device_id: str, interrupt_id: str) -> _Asking | None:
        """The question, if it waits for its answer in the manager graph and in the agent's own: one that has changed
        since would take itself for finished."""
        state = await self.graph.aget_state({"configurable": {"thread_id": device_id}})
        for task in state.tasks:
            asked: Any = task
            if task.state:
                ns = {"thread_id": device_id, "checkpoint_ns": task.name}
                inside = await self.graph.aget_state({"configurable": ns})
                # At a static breakpoint nothing inside has asked; the agent's node asks for it.
                at_breakpoint = inside.next and not inside.interrupts
                asked = task if at_breakpoint else inside
            name = task.name.partition(".")[0]
            agent = self.agents.get(name)
            for interrupt in asked.interrupts:
                if interrupt.id == interrupt_id and agent is not None:
                    calls = () if task.state else open_calls(state.values.get(f"{name}.history", ()))
                    tool = calls[0]["function"]["name"] if calls else None
                    return _Asking(agent, interrupt.value, tool)
        return None

    async def _close(self, turn: OpenTurn, why: Closing) -> None:
        """Closes what the run before has left open in a graph; an agent of the kit closes its own calls."""
        asked = await self.graph.aget_state({"configurable": {"thread_id": turn.device_id}})
        for task in asked.tasks:
            if task.state:
                inside = {"configurable": {"thread_id": turn.device_id, "checkpoint_ns": task.name}}
                await close_question(self.graph, cast("RunnableConfig", inside), why)


def _lacks(asking: _Asking) -> bool:
    """Whether the agent does not have the tool any more that asked."""
    tools: Sequence[object] = getattr(asking.agent, "tools", ())
    known = all(isinstance(tool, Tool) for tool in tools)  # others may still have to say which they are
    return asking.tool is not None and known and asking.tool not in {getattr(tool, "name", None) for tool in tools}


def _expired(question: Question, turn: OpenTurn) -> bool:
    return question.expires_at is not None and datetime.fromisoformat(question.expires_at) <= turn.now


def _fitting(question: Question, resume: Resume, turn: OpenTurn) -> Given:
    """The answer that a `Resume` gives. Raises `NothingWaits` and `InvalidMessage`."""
    if _expired(question, turn):
        raise NothingWaits(
            f"The question expired at {question.expires_at}, so nothing can answer it any more. Send a message instead."
        )
    value = resume.value
    if question.options:
        value = question.option(value) if isinstance(value, str) else None
        if value is None:
            raise InvalidMessage(
                f"The answer must be one of the question's options: {', '.join(question.options)}. The question waits "
                "on."
            )
    return Given.to(question, value, by=resume.by)


def _goes_on(turn: OpenTurn, decided: Decision, found: AskedQuestion | None) -> Beginning:
    """The beginning of a run that goes on with an answer."""
    if found is not None:
        turn.run = found.run
        turn.made = made_for(decided.interrupt_id, found.attempts)
    assert decided.given is not None  # noqa: S101 - it is an answer
    return Beginning(input=Command(resume={decided.interrupt_id: decided.given.value}), given=decided.given)


def _ran(decided: Decision, found: AskedQuestion | None) -> Mapping[str, Any] | None:
    """What the call gave whose question is closed, if it ran for an earlier answer whose turn then failed."""
    made = None if found is None else made_for(decided.interrupt_id, found.attempts)
    if made is None or did_nothing(made.result):
        return None
    if made.result is None:
        return {"value": unknown_outcome(made.name, TURN_FAILED, idempotent=False)}
    given = [made.result[how] for how in ("value", "refused") if how in made.result]  # none if it only asked
    return {"value": given[0]} if given else None


def _made(turn: OpenTurn) -> tuple[UnfinishedCall, ...]:
    """What the turn's own journal says was done."""
    return tuple(
        UnfinishedCall(agent=entry.agent, tool=entry.name, arguments=entry.intent, result=entry.result)
        for entry in turn.journal
        if entry.kind != "answer"
    )
