"""The reply of a turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel

from moorline_agents.messages import Usage
from moorline_agents.questions import Question
from moorline_checkpoint import html


@dataclass(frozen=True, kw_only=True)
class Interrupt:
    """An agent's question, which is answered with `Resume(interrupt_id=id, value=…)`, or, if it has options or a
    schema, with what the person writes next."""

    id: str
    value: Any
    """What was asked, as JSON: of `ToolContext.ask` and of a confirmation `{"question": …, "options": […],
    "expires_at": …}`, or `schema` for `options`."""

    @property
    def options(self) -> tuple[str, ...]:
        """The answers that it takes, for buttons; empty if it takes others."""
        return () if self._own is None else self._own.options

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema of its answer, if it has one."""
        return None if self._own is None else self._own.schema

    @property
    def expires_at(self) -> datetime | None:
        """The moment on the database's clock from which nothing answers it."""
        until = None if self._own is None else self._own.expires_at
        return None if until is None else datetime.fromisoformat(until)

    @property
    def _own(self) -> Question | None:
        return Question.of(self.value)

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "value": self.value}


class Reply(str):
    """The answer to a message: an ordinary `str`, with attributes that say how it came about."""

    message_id: str | None
    """The ID of the message that it answers, even if Moorline made it."""
    agent: str | None
    """The agent that answered; None if the manager itself did."""
    turn_no: int
    """The turn's number on its device, from 1."""
    replayed: bool
    """Whether the message was answered before: then this is the stored reply, and nothing ran."""
    recovered: tuple[Reply, ...]
    """Replies of earlier, crashed turns of the device that this call finished first, oldest first."""
    handoffs: tuple[str, ...]
    """The agents that the message was handed over to, in order."""
    interrupt: Interrupt | None
    """The agent's question, if it stopped to ask."""
    usage: Usage
    """The tokens that the models reported, by model and agent: of all answers of the turn, those of the router and of
    attempts that failed included. Usages can be added."""
    notice: str | None
    """What its device is told beside the reply, in a sentence of `Texts`: that another device has joined."""
    output: Any
    """The answer of an agent with an `output`: an instance of that class, or its JSON where the agent is not among
    those of the `Moorline` (any more), or where its class no longer takes it. None for other replies."""
    degraded: bool
    """Whether it was answered without memory and without effects, because the store could not be reached."""

    def __new__(
        cls,
        text: str,
        *,
        message_id: str | None = None,
        agent: str | None = None,
        turn_no: int = 0,
        replayed: bool = False,
        recovered: tuple[Reply, ...] = (),
        handoffs: tuple[str, ...] = (),
        interrupt: Interrupt | None = None,
        usage: Usage | None = None,
        notice: str | None = None,
        degraded: bool = False,
        output: Any = None,
    ) -> Self:
        reply = super().__new__(cls, text)
        reply.__dict__.update(
            message_id=message_id,
            agent=agent,
            turn_no=turn_no,
            replayed=replayed,
            recovered=recovered,
            handoffs=handoffs,
            interrupt=interrupt,
            usage=usage or Usage(),
            notice=notice,
            degraded=degraded,
            output=output,
        )
        return reply

    def to_json(self) -> dict[str, Any]:
        """The reply as JSON: `text` and the attributes. Of `usage`, the sums."""
        output = self.output
        if isinstance(output, BaseModel):
            output = output.model_dump(mode="json", by_alias=True)
        return {
            "message_id": self.message_id,
            "text": str(self),
            "agent": self.agent,
            "turn_no": self.turn_no,
            "replayed": self.replayed,
            "handoffs": list(self.handoffs),
            "interrupt": None if self.interrupt is None else self.interrupt.to_json(),
            "usage": dict(self.usage),
            "notice": self.notice,
            "recovered": [reply.to_json() for reply in self.recovered],
            "degraded": self.degraded,
            "output": self.output.model_dump(mode="json", by_alias=True)
            if isinstance(self.output, BaseModel)
            else self.output,
        }

    def _repr_html_(self) -> str:
        """The reply, and below it what is not as usual."""
        told = {"agent": self.agent or "manager", "turn": str(self.turn_no), "message": self.message_id or ""}
        told["handed over to"] = ", then ".join(self.handoffs)
        told["asks"] = "" if self.interrupt is None else f"question {self.interrupt.id} waits for a Resume"
        told["tokens"] = (
            f"{self.usage.prompt_tokens:,} + {self.usage.completion_tokens:,}" if any(self.usage.values()) else ""
        )
        told["notice"] = self.notice or ""
        told["replayed"] = "yes: it was answered before" if self.replayed else ""
        told["degraded"] = "yes: without memory and effects" if self.degraded else ""
        told["output"] = "" if self.output is None else type(self.output).__name__
        told["recovered"] = "\n".join(self.recovered)
        return html.fields({name: value for name, value in told.items() if value}, above=str(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A Reply does not change: {name} cannot be set.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reply, (str(self), dict(self.__dict__)))


def _reply(text: str, attributes: dict[str, Any]) -> Reply:
    return Reply(text, **attributes)
