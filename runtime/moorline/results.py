"""What comes of a run: the record that is committed, the reply that is returned, or the error that is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphRecursionError
from langgraph.types import Interrupt as GraphInterrupt
from pydantic import BaseModel

from moorline.errors import AgentError, InvalidMessage, ModelError, MoorlineError, StateDamaged, StoreUnavailable
from moorline.origins import origin
from moorline.reply import Interrupt, Reply
from moorline.texts import Texts
from moorline_agents.agent import Agent
from moorline_agents.messages import Usage
from moorline_agents.questions import Question, UnfitAnswer
from moorline_agents.run import Progress
from moorline_agents.structured import fitted
from moorline_agents.values import exact
from moorline_checkpoint.turn import OpenTurn, TurnRecord

if TYPE_CHECKING:
    from moorline.manager import AgentProtocol

Outputs = Mapping[str, type[BaseModel]]

_NO_OUTPUTS: Outputs = MappingProxyType({})

MAX_REPLY = 262_144
"""Characters that a reply may have."""


def record_of(
    turn: OpenTurn, progress: Progress, interrupts: Sequence[GraphInterrupt], *, choose: str = Texts.choose
) -> TurnRecord:
    """The record of a run, to be committed; `choose` shows a question with its options. Raises `AgentError` if the
    agent said nothing or far too much, or asked what is no JSON."""
    interrupt = _interrupt(interrupts[0], progress) if interrupts else None
    reply = progress.reply if interrupt is None else question(interrupt.value, choose=choose)
    if interrupt is None and not reply.strip():
        raise AgentError(f"Agent {progress.agent} gave an empty answer.")
    if len(reply) > MAX_REPLY:
        raise AgentError(
            f"Agent {progress.agent} gave an answer of {len(reply):,} characters, but only {MAX_REPLY:,} are allowed."
        )
    agent = progress.agent if interrupt is None else turn.active_agent
    return TurnRecord(
        turn_no=turn.turn_no,
        agent=agent,
        reply=reply,
        handoffs=progress.handoffs,
        usage=progress.usage.as_json(agent),
        interrupt={"id": interrupt.id, "value": interrupt.value} if interrupt else None,
        output=None if interrupt else progress.output,
    )


def reply_of(
    record: TurnRecord,
    *,
    message_id: str,
    replayed: bool = False,
    recovered: tuple[Reply, ...] = (),
    notice: str | None = None,
    degraded: bool = False,
    outputs: Outputs = _NO_OUTPUTS,
) -> Reply:
    """The reply that the caller gets for a turn; `outputs` are the classes of agents' answers."""
    return Reply(
        record.reply,
        message_id=message_id,
        agent=record.agent,
        turn_no=record.turn_no,
        replayed=replayed,
        recovered=recovered,
        handoffs=record.handoffs,
        interrupt=Interrupt(**record.interrupt) if record.interrupt else None,
        usage=usage_of(record),
        notice=notice,
        degraded=degraded,
        output=_output(record, outputs),
    )


def outputs_of(agents: Sequence[AgentProtocol]) -> Outputs:
    """The classes of the agents' answers, by all names of each agent that has one."""
    kit = [agent for agent in agents if isinstance(agent, Agent)]
    return {name: agent.output for agent in kit if agent.output for name in (agent.name, *agent.aliases)}


def _output(record: TurnRecord, outputs: Outputs) -> Any:
    """What a program gets: an instance if the agent is here and its class takes the answer, else the JSON."""
    model = outputs.get(record.agent or "")
    if record.output is None or model is None:
        return record.output
    with suppress(ValueError):
        return fitted(model, record.output)
    return record.output


def failure_of(error: BaseException) -> BaseException:
    """The error to raise for a run that raised `error`. Our own errors and cancellations stay as they are."""
    if isinstance(error, MoorlineError) or not isinstance(error, Exception):
        return error
    if isinstance(error, UnfitAnswer):
        return InvalidMessage(f"{error} The question waits on.")
    if isinstance(error, GraphRecursionError):
        return AgentError("The agents' graphs took too many steps without an answer.")
    return AgentError(f"An agent failed ({type(error).__name__}: {origin(error)}); see its cause.")


def is_outer(error: BaseException) -> bool:
    """Whether something other than the message caused the failure, so that it does not count as an attempt."""
    return isinstance(error, StoreUnavailable | StateDamaged | asyncio.CancelledError) or (
        isinstance(error, ModelError) and error.retryable
    )


def usage_of(record: TurnRecord) -> Usage:
    """What the turn cost."""
    return Usage.of_json(record.usage, record.agent)


def question(value: Any, *, choose: str) -> str:
    """An interrupt's value, which is JSON, as a person is asked: a question of the kit with its options, any other's
    `message` or `question`, or all of it in lines of text."""
    own = Question.of(value)
    if own is not None:
        return choose.format(question=own.text, options=" / ".join(own.options)) if own.options else own.text
    if isinstance(value, dict):
        asked = next((value[key] for key in ("message", "question") if isinstance(value.get(key), str)), None)
        return asked if asked is not None else "\n".join(f"{name}: {_in_line(item)}" for name, item in value.items())
    return "\n".join(map(_in_line, value)) if isinstance(value, list) else _in_line(value)


def _in_line(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_in_line, value))
        case dict():
            return ", ".join(f"{name}: {_in_line(item)}" for name, item in value.items())
        case _:
            return str(value)


def _interrupt(asked: GraphInterrupt, progress: Progress) -> Interrupt:
    try:
        return Interrupt(id=asked.id, value=exact(asked.value))
    except ValueError as error:
        raise AgentError(
            f"Agent {progress.agent} asked a question whose value is not JSON: {error}. Nothing of it was stored; ask "
            "with text, or with what JSON can hold."
        ) from error
