"""A desk that asks before it acts, and a model that calls its tools and says what people mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from moorline import Moorline, Reply, Resume
from moorline_agents.agent import Agent
from moorline_agents.interpreting import ANSWER
from moorline_agents.tools import Tool, ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest


class Booking(BaseModel):
    what: str = "table"
    hour: int = 9


class Nothing(BaseModel):
    pass


class Guests(BaseModel):
    count: int = Field(ge=1)
    where: Literal["inside", "garden"] = "inside"

    @field_validator("count")
    @classmethod
    def not_unlucky(cls, value: int) -> int:
        if value == 13:
            raise ValueError("not thirteen")
        return value


class Days(BaseModel):
    days: int


def desk_tools(
    done: list[Any], *, confirm: str | None = "Book the {what} at {hour}?", expires: float = 3600
) -> dict[str, Tool]:
    """`book` needs a yes; `pay` and `call` need one and act outside; the others ask by themselves."""

    @tool(effect="database", confirm=confirm)
    async def book(booking: Booking, context: ToolContext) -> dict[str, Any]:
        """Books."""
        async with context.transaction() as connection:
            await connection.execute("INSERT INTO bookings VALUES ($1, $2)", context.device_id, booking.what)
        done.append(("book", booking.what, booking.hour, context.answered_by))
        return {"booked": booking.what, "at": booking.hour}

    @tool(effect="outside", confirm=confirm)
    async def pay(booking: Booking, context: ToolContext) -> dict[str, Any]:
        """Pays."""
        done.append(("pay", context.idempotency_key))
        return {"paid": booking.what}

    @tool(effect="outside")
    async def seat(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Asks how many they are, then calls the waiter."""
        done.append(("asks", context.idempotency_key))
        guests = await context.ask("How many are you, and where?", schema=Guests)
        assert isinstance(guests, Guests)
        done.append(("seated", context.idempotency_key))
        return {"guests": guests.count, "where": guests.where, "by": context.answered_by}

    @tool()
    async def stay(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Asks for how many days."""
        return {"days": (await context.ask("How many days?", schema=Days)).days}

    @tool()
    async def menu(_: Nothing, context: ToolContext) -> dict[str, Any]:
        """Asks twice."""
        dish = await context.ask("Which dish?", options=("soup", "fish"))
        by = context.answered_by
        size = await context.ask("How much of it?", options=["little", "much"], expires=expires)
        return {"dish": dish, "size": size, "by": [by, context.answered_by]}

    return {each.name: each for each in (book, pay, seat, stay, menu)}


def desk(done: list[Any], *names: str, name: str = "desk", **changed: Any) -> Agent:
    """The agent, with all of its tools or those that are named."""
    tools = desk_tools(done, **changed)
    kept = [tools[each] for each in names or tools]
    return Agent(name=name, description="does it", instructions="desk", tools=kept)


def calling(request: ModelRequest) -> ModelReply:
    """Calls the tool that the person's last message names, with the hour that it names; afterwards, and for any other
    message, says what it was shown since."""
    asked = max(n for n, message in enumerate(request.messages) if message["role"] == "user")
    words = (request.messages[asked]["content"] or "").split()
    results = [message["content"] or "" for message in request.messages if message["role"] == "tool"]
    if words[0] in request.functions and request.messages[-1]["role"] == "user":
        hours = [int(word) for word in words[1:] if word.isdecimal()]
        return ModelReply(calls=(Call(name=words[0], arguments={"hour": hours[0]} if hours else {}),))
    return ModelReply(text=f"{' '.join(words)} | {results[-1] if results else ''}")


class Meaning:
    """`calling`, and a model that says what people mean: `means` has the `answer` call's arguments by their words."""

    def __init__(self, means: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.means = dict(means or {})
        self.asked: list[str] = []
        """The words that it was asked about."""
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        if ANSWER not in request.functions:
            return calling(request)
        told = json.loads(request.messages[-1]["content"] or "")
        self.asked.append(told["message"])
        arguments = self.means.get(told["message"], {"answers": False, "more": True})
        return ModelReply(calls=(Call(name=ANSWER, arguments=dict(arguments)),))


def plainly(answer: Any) -> dict[str, Any]:
    """What a model says of a message that is an answer and nothing else."""
    return {"answers": True, "more": False, "answer": answer}


async def resumed(moorline: Moorline, reply: Reply, value: Any, device: str = "d1", *, by: str | None = None) -> Reply:
    """Answers the question with a `Resume`."""
    assert reply.interrupt is not None
    return await moorline.run(Resume(interrupt_id=reply.interrupt.id, value=value, by=by), {"device_id": device})
