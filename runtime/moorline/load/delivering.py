"""Delivering the messages of a load test, all people at once, and keeping what became of each."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from moorline.errors import MoorlineError
from moorline.load.conversations import Message, Plan
from moorline.load.targets import Answer, Target

LONGEST_PAUSE = 2.0
"""Seconds before a message that failed is delivered again, unless the target asks for more."""


class TryLater(MoorlineError):
    """What is under load asks for the message again, after `seconds`."""

    retryable = True

    def __init__(self, text: str, *, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


@dataclass
class Delivery:
    """A message, and what became of it."""

    message: Message
    answers: list[Answer] = field(default_factory=list)
    """One for each delivery that was answered."""
    error: MoorlineError | None = None
    """Why it was given up."""
    seconds: float | None = None
    """From its first delivery to its first answer."""


@dataclass
class Delivered:
    """What became of all messages."""

    deliveries: list[Delivery]
    seconds: float = 0.0
    again: Counter[str] = field(default_factory=Counter)
    """How often messages were delivered again, by the error before."""
    stopped: bool = False
    """Whether it ended early, because its time was over or it was told to."""


async def deliver(
    plan: Plan,
    said: Sequence[Sequence[Message]],
    target: Target,
    *,
    stop: asyncio.Event,
    on_answer: Callable[[], None],
) -> Delivered:
    """Delivers everything that the people say, until all is answered or given up, `stop` is set or the plan's time is
    over. `on_answer` is called once for each message."""
    talks = [[Delivery(message) for message in talk] for talk in said]
    delivered = Delivered([each for talk in talks for each in talk])
    posting = _Posting(plan=plan, target=target, again=delivered.again, on_answer=on_answer)
    began = time.perf_counter()
    talking = asyncio.gather(*map(posting.talk, talks))
    stopping = asyncio.create_task(stop.wait())
    waited: set[asyncio.Future[Any]] = {talking, stopping}
    try:
        await asyncio.wait(waited, timeout=plan.within, return_when=asyncio.FIRST_COMPLETED)
        delivered.stopped = not talking.done()
    finally:
        delivered.seconds = time.perf_counter() - began
        stopping.cancel()
        talking.cancel()
        with suppress(asyncio.CancelledError):
            await talking
    return delivered


@dataclass(frozen=True, kw_only=True)
class _Posting:
    plan: Plan
    target: Target
    again: Counter[str]
    on_answer: Callable[[], None]

    async def talk(self, talk: Sequence[Delivery]) -> None:
        if self.plan.burst:
            await asyncio.gather(*map(self._post, talk))
            return
        for each in talk:
            await self._post(each)

    async def _post(self, delivery: Delivery) -> None:
        began = time.perf_counter()
        await asyncio.gather(*(self._until_answered(delivery) for _ in range(1 + self.plan.duplicates)))
        if not delivery.answers:
            return
        delivery.seconds = time.perf_counter() - began
        self.on_answer()
        if self.plan.duplicates:
            await self._until_answered(delivery)

    async def _until_answered(self, delivery: Delivery) -> None:
        message, pause = delivery.message, 0.1
        while True:
            try:
                answer = await self.target.send(message.device_id, message.text, message.id)
            except MoorlineError as error:
                if not error.retryable:
                    delivery.error = error
                    return
                self.again[type(error).__name__] += 1
                asked = error.seconds if isinstance(error, TryLater) else 0.0
                await asyncio.sleep(max(asked, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - spreads them
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                delivery.answers.append(answer)
                return
