"""Workers that are hit in the middle of a turn, one at each point where that can make a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tests.faults.failpoints import Failpoint, Place
from tests.faults.history import Event
from tests.faults.laboratory import Laboratory, Running
from tests.faults.worker import Errand

PLACES: tuple[tuple[Place, str, int], ...] = (
    ("after_begin", "say", 1),
    ("after_model", "say", 1),
    ("after_model", "pass scheduling", 1),
    ("after_model", "pass scheduling", 2),
    ("before_effect", "ring", 1),
    ("before_effect", "chime", 1),
    ("before_effect", "book", 1),
    ("after_effect", "ring", 1),
    ("after_effect", "chime", 1),
    ("after_effect", "book", 1),
    ("after_journal", "ring", 1),
    ("after_journal", "ring", 2),
    ("after_journal", "book", 1),
    ("before_commit", "say", 1),
    ("before_commit", "book", 1),
    ("after_commit_before_reply", "say", 1),
)
"""The failpoint, what the message that is hit says, and at which passing in its turn."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A worker with a device of its own, to which it sends three messages; it is hit in the turn of the second."""

    number: int
    at: Place
    verb: str
    hit: int
    day: str

    @property
    def name(self) -> str:
        """The worker's name."""
        return f"v{self.number}"

    @property
    def device(self) -> str:
        """A device that nobody else has."""
        return f"victim-{self.number}"

    @cached_property
    def errands(self) -> tuple[Errand, ...]:
        """The three messages."""
        verb = f"book {self.day}T{self.number:02}:00" if self.verb == "book" else self.verb
        texts = {f"m-{self.name}-{number}": text for number, text in ((901, "say"), (902, verb), (903, "say"))}
        return tuple(Errand(device=self.device, message=id, text=f"{id} {text}") for id, text in texts.items())

    @property
    def struck(self) -> str:
        """The ID of the message that is hit."""
        return self.errands[1].message

    def start(self, laboratory: Laboratory, *, signal: Literal["SIGKILL", "SIGSTOP"], lease: float) -> Running:
        """Begins its life."""
        failpoint = Failpoint(at=self.at, message=self.struck, hit=self.hit, signal=signal)
        return laboratory.start(self.name, errands=self.errands, failpoints=(failpoint,), lease=lease)


def victims(laboratory: Laboratory, *places: Place) -> list[Victim]:
    """One for each of the points, by default all."""
    chosen = [place for place in PLACES if not places or place[0] in places]
    return [
        Victim(number=number, at=at, verb=verb, hit=hit, day=laboratory.day)
        for number, (at, verb, hit) in enumerate(chosen)
    ]


async def struck(laboratory: Laboratory, hit: Sequence[Victim]) -> dict[str, Event]:
    """Waits until all of them were hit; returns the events by message."""
    await laboratory.until(lambda: len(laboratory.events("failpoint")) == len(hit), "all victims to be hit")
    events = {event.worker: event for event in laboratory.events("failpoint")}
    return {victim.struck: events[victim.name] for victim in hit}


def recoveries(strikes: dict[str, Event], events: Sequence[Event]) -> dict[str, float]:
    """By message that was hit, the seconds until its turn was committed, if that happened afterwards."""
    found: dict[str, float] = {}
    for event in events:
        for message in set(event.messages) & strikes.keys() - found.keys():
            if event.event == "committed" and event.at > strikes[message].at:
                found[message] = event.at - strikes[message].at
    return found
