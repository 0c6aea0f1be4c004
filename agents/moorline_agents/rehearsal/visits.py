"""Services, free times and appointments, as the results of the scheduling tools hold them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    """The services in a result of `find_slots`."""
    return tuple(
        Service(name=each["service"], minutes=each["minutes"], providers=tuple(each["providers"]))
        for each in content.get("services", ())
    )


def offers_of(content: Mapping[str, Any]) -> tuple[Offer, ...]:
    """The free times in a tool's result or refusal."""
    return tuple(
        Offer(
            start=slot["start"],
            local=_local(slot["start"]),
            spoken=f"{slot['when']} with {' or '.join(slot['providers'])}",
        )
        for slot in content.get("slots", ())
    )


def visits_of(content: Mapping[str, Any]) -> tuple[Visit, ...]:
    """The appointments in a tool's result or refusal."""
    return tuple(visit_of(each) for each in content.get("appointments", ()))


def visit_of(appointment: Mapping[str, Any]) -> Visit:
    """One appointment in a tool's result."""
    return Visit(
        reference=appointment["reference"],
        service=appointment["service"],
        provider=appointment["provider"],
        local=_local(appointment["start"]),
        spoken=appointment["when"],
    )


def _local(start: str) -> datetime:
    return datetime.fromisoformat(start).replace(tzinfo=None)
