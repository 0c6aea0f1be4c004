"""Services, free times and appointments, as the scheduling tools' answers tell of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SLOT_IN_TEXT = re.compile(r"(?P<when>\w+day \d[^;:()]*:\d\d[^;:()]*) \((?P<start>\d{4}-\d\d-\d\dT[\d:]+[+-][\d:]+)\)")
_START_IN_TEXT = re.compile(r"\b(?P<start>\d{4}-\d\d-\d\dT\d\d:\d\d(?:[+-][\d:]+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Something that can be booked."""

    name: str
    minutes: int
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A time that can be booked."""

    start: str
    """What to pass to the tool."""
    local: datetime
    spoken: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An appointment of the person."""

    reference: str
    service: str
    provider: str
    local: datetime
    spoken: str

    def __str__(self) -> str:
        return f"{self.service} with {self.provider} on {self.spoken}"


def services_of(content: Mapping[str, Any]) -> tuple[Service, ...]:
    """What an answer of `find_slots` says is offered."""
    return tuple(
        Service(name=each["service"], minutes=each["minutes"], providers=tuple(each["providers"]))
        for each in content.get("services", ())
    )


def offers_of(content: Mapping[str, Any]) -> tuple[Offer, ...]:
    """The free times in an answer of a tool: its slots, or the times that an error names."""
    if "slots" in content:
        return tuple(
            _offer(slot["start"], f"{slot['when']} with {' or '.join(slot['providers'])}") for slot in content["slots"]
        )
    error = str(content.get("error", ""))
    told = [_offer(match["start"], match["when"]) for match in _SLOT_IN_TEXT.finditer(error)]
    bare = [_offer(match["start"], match["start"]) for match in _START_IN_TEXT.finditer(error)]
    return tuple(told or bare)


def visit_of(appointment: Mapping[str, Any]) -> Visit:
    """One appointment of a tool's answer."""
    return Visit(
        reference=appointment["reference"],
        service=appointment["service"],
        provider=appointment["provider"],
        local=_local(appointment["start"]),
        spoken=appointment["when"],
    )


def _offer(start: str, spoken: str) -> Offer:
    return Offer(start=start, local=_local(start), spoken=spoken)


def _local(start: str) -> datetime:
    return datetime.fromisoformat(start).replace(tzinfo=None)
