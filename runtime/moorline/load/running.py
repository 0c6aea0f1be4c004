"""Running a load test: devices are made, messages delivered, the outcome is judged, and the devices are erased."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from moorline.load.conversations import Plan, conversations
from moorline.load.delivering import Delivered, deliver
from moorline.load.judging import judge
from moorline.load.report import Report
from moorline.load.targets import Target, warm_up

AT_ONCE = 16
"""Devices that are made, read or erased at the same time."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


async def run_load(
    plan: Plan,
    target: Target,
    *,
    stop: asyncio.Event | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> Report:
    """Runs the load test and returns its result; its devices are erased afterwards.

    A message that is not counted goes first. It ends early once `stop` is set or the plan's time is over, with what
    there is. `on_answer` is called for each message that is answered. Raises what the target raises when a device is
    made, read or erased.
    """
    await warm_up(target)
    devices = await _each(lambda _: target.new_device(), range(1 if plan.same_device else plan.devices))
    try:
        said = conversations(plan, devices)
        delivered = await deliver(plan, said, target, stop=stop or asyncio.Event(), on_answer=on_answer)
        transcripts = dict(zip(devices, await _each(target.transcript, devices), strict=True))
        verdict = judge(delivered.deliveries, transcripts)
    finally:
        await _each(target.erase, devices)
    turns = {(each.message.device_id, answer.turn_no) for each in delivered.deliveries for answer in each.answers}
    return Report(
        plan=plan,
        seconds=delivered.seconds,
        turns=len(turns),
        latencies=_latencies(delivered),
        verdict=verdict,
        again=dict(delivered.again),
        stopped=delivered.stopped,
    )


def _latencies(delivered: Delivered) -> list[float]:
    return [each.seconds for each in delivered.deliveries if each.seconds is not None]


async def _each(do: Callable[[_In], Awaitable[_Out]], what: Iterable[_In]) -> list[_Out]:
    """Does it with each, some at a time; the results are in order."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(each: _In) -> _Out:
        async with room:
            return await do(each)

    return await asyncio.gather(*map(one, what))
