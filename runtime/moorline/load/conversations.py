"""The conversations of a load test: how many there are, who says what, and when."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from moorline.errors import ConfigurationError

MOST = 1_000_000
"""Messages of one load test: what became of each is kept until the end."""

MARK = re.compile(r"\b[0-9a-f]{8}\.\d+\.\d+\b")
"""The ID of a message, which also stands in its text: the test, the person, and the number of what they say."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A load test: `devices` people at once, each of whom says `turns` things and waits for each reply before the next.

    With `same_device` all of them write to one device. With `duplicates` each message is delivered three times: twice
    at the same moment, and once more when it has been answered. With `burst` a person waits for no reply. After
    `within` seconds the test stops with what there is. Raises `ConfigurationError` for what is no plan.
    """

    devices: int = 100
    turns: int = 5
    same_device: bool = False
    duplicates: bool = False
    burst: bool = False
    within: float = 600.0

    def __post_init__(self) -> None:
        if self.devices < 1 or self.turns < 1 or self.devices * self.turns > MOST:
            raise ConfigurationError(f"A load test has 1 to {MOST:,} messages, and each device at least one turn.")
        if not self.within > 0:
            raise ConfigurationError("A load test needs some seconds to run within.")

    @property
    def messages(self) -> int:
        """How many messages there are, each counted once."""
        return self.devices * self.turns


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a person says. The ID stands in the text as well."""

    id: str
    device_id: str

    @property
    def text(self) -> str:
        return f"Load test, message {self.id}."


def conversations(plan: Plan, devices: Sequence[str]) -> list[list[Message]]:
    """What each person of the plan says, on these devices."""
    test = uuid4().hex[:8]
    return [
        [
            Message(id=f"{test}.{person}.{number}", device_id=devices[person % len(devices)])
            for number in range(1, plan.turns + 1)
        ]
        for person in range(plan.devices)
    ]


def marks_in(text: str) -> list[str]:
    """The IDs of messages that stand in a text, in order."""
    return MARK.findall(text)


def person_of(mark: str) -> int:
    """The number of the person who said it."""
    return int(mark.split(".")[1])
