"""Observers get every event in order, and whatever one does harms no turn."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from moorline import Event, InvalidMessage, Moorline, Settings, TurnFailed, TurnFinished, TurnStarted, observers
from moorline.events import EVENT_TYPES
from moorline.telling import Heard
from moorline.testing import Script
from moorline_agents.transport import rule_client

from .conftest import agent, counting
from .test_events import told

Observed = Callable[..., Moorline]


@pytest.fixture
def observed(settings: Settings) -> Observed:
    def make(*observers: Any) -> Moorline:
        agents = [agent("hair"), agent("nails")]
        return Moorline(
            settings, agents=agents, client=lambda: rule_client(Script(rules=counting)), observers=observers
        )

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "PATIENCE", 0.2)
    monkeypatch.setattr(observers, "MOST", 10)


async def hours(moorline: Moorline, device: str) -> None:
    for number in range(5):
        await moorline.run("hair please", {"device_id": device, "message_id": f"m{number}"})


async def test_an_observer_that_names_types_gets_those_only(observed: Observed) -> None:
    every: list[Event] = []

    class Ends:
        takes = (TurnFinished, TurnFailed)

        def __init__(self) -> None:
            self.heard: list[Event] = []

        async def __call__(self, event: Event) -> None:
            self.heard.append(event)

    async def all_of_it(event: Event) -> None:
        every.append(event)

    ends, alone = Ends(), Ends()
    async with observed(ends, all_of_it) as moorline:
        await hours(moorline, "d1")
        streamed = [event async for event in moorline.stream("hair please", {"device_id": "d2"})]
    assert ends.heard == [event for event in every if isinstance(event, TurnFinished)]
    assert len(ends.heard) == 6
    assert streamed == [event for event in every if event.device_id == "d2"]
    assert [event.seq for event in streamed] == [*range(1, len(streamed) + 1)]

    async with observed(alone) as moorline:
        await hours(moorline, "d3")
    expected = [event.seq for event in ends.heard if event.device_id == "d1"]
    assert [event.seq for event in alone.heard] == expected  # numbers count what nobody took


async def test_every_observer_gets_all_events_of_all_turns_in_order(observed: Observed) -> None:
    heard: list[Event] = []
    awaited: list[Event] = []
    threads: set[int] = set()

    def plain(event: Event) -> None:
        threads.add(threading.get_ident())
        heard.append(event)

    class Slow:
        async def __call__(self, event: Event) -> None:
            await asyncio.sleep(0)
            awaited.append(event)

    async with observed(plain, Slow()) as moorline:
        await asyncio.gather(*(hours(moorline, device) for device in ("d1", "d2", "d3")))
        streamed = await told(moorline, "again", message_id="m9")
        again = await told(moorline, "again", message_id="m9")
        refused = await told(moorline, " ")
    assert heard == awaited
    assert threads.isdisjoint({threading.get_ident()})
    assert len(threads) == 1
    assert [event for event in heard if event in (*streamed, *again, *refused)] == [*streamed, *again, *refused]
    for device in ("d1", "d2", "d3"):
        turns = [event for event in heard if event.device_id == device and event.turn_no in range(1, 6)]
        starts = [place for place, event in enumerate(turns) if isinstance(event, TurnStarted) and not event.replayed]
        assert len(starts) == 5
        for begin, end in zip(starts, [*starts[1:], len(turns)], strict=True):
            assert [event.seq for event in turns[begin:end]] == [*range(1, end - begin + 1)]
            assert isinstance(turns[end - 1], TurnFinished)


async def raises(event: Event) -> None:
    raise LookupError(event)


def raises_in_its_thread(event: Event) -> None:
    raise LookupError(event)


def blocks(event: Event) -> None:
    time.sleep(0.05)


def never_returns(event: Event) -> None:
    threading.Event().wait()


async def never_ends(event: Event) -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("observer", [raises, raises_in_its_thread, blocks, never_returns, never_ends])
async def test_a_bad_observer_harms_no_turn_and_is_logged_once(
    observed: Observed, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    others: list[Event] = []
    with caplog.at_level(logging.ERROR, logger="moorline.observers"):
        async with observed(observer, others.append) as moorline:
            begun = time.monotonic()
            await hours(moorline, "d1")
            assert time.monotonic() - begun < 5
            ended = time.monotonic()
        assert time.monotonic() - ended < 3
    assert sum(isinstance(event, TurnFinished) for event in others) == 5
    logged = [record.getMessage() for record in caplog.records if observer.__name__ in record.getMessage()]
    assert logged
    assert len(logged) == len(set(logged)) <= 2
    assert not any("hair please" in text for text in logged)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("in_thread", [False, True])
async def test_no_more_than_a_bound_waits_for_an_observer_that_is_slow(
    observed: Observed, in_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []
    go_on = threading.Event()

    async def waits(event: Event) -> None:
        seen.append(event)
        await asyncio.to_thread(go_on.wait)

    def waits_in_its_thread(event: Event) -> None:
        seen.append(event)
        go_on.wait()

    observer: Any = waits_in_its_thread if in_thread else waits
    async with observed(observer) as moorline:
        await hours(moorline, "d1")
        go_on.set()
    assert f"{observer.__qualname__} falls behind" in caplog.text
    # The one it had in its hands, and all that may wait: the first ones of the first turns.
    assert len(seen) in (observers.MOST, observers.MOST + 1)
    assert [event.seq for event in seen][:3] == [1, 2, 3]


async def test_a_call_that_comes_to_no_turn_is_told_to_observers(observed: Observed) -> None:
    heard: list[Event] = []
    async with observed(heard.append) as moorline:
        with pytest.raises(InvalidMessage):
            await moorline.run("", {"device_id": "d1"})
    [failed] = heard
    assert isinstance(failed, TurnFailed)
    assert (failed.turn_no, failed.seconds) == (0, 0)


async def test_a_caller_that_goes_away_leaves_no_turn_without_an_end(observed: Observed) -> None:
    heard: list[Event] = []
    async with observed(heard.append) as moorline:
        for on_cancel in ("finish", "release"):
            stream = moorline.stream("hair please", {"device_id": on_cancel, "on_cancel": on_cancel})
            async for _ in stream:
                break
            await stream.aclose()
    for device in ("finish", "release"):
        own = [event for event in heard if event.device_id == device]
        assert isinstance(own[0], TurnStarted)
        assert isinstance(own[-1], TurnFinished | TurnFailed)
        assert sum(isinstance(event, TurnFinished | TurnFailed) for event in own) == 1


def test_nothing_is_told_after_the_end() -> None:
    """A thread of the turn, or a caller that gave up, may come later."""
    heard: list[Event] = []
    telling = Heard({kind: [heard.append] for kind in EVENT_TYPES}, device_id="d1")
    telling.fail(InvalidMessage("empty"))
    telling.text("late")
    telling.fail(InvalidMessage("again"))
    assert [event.type for event in heard] == ["turn_failed"]
