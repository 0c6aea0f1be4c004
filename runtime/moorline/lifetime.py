"""How long a session shall last that a call asks for: the keys `session_ttl` and `session_until` of its context."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from moorline.errors import ConfigurationError, InvalidContext
from moorline_checkpoint.sessions import require_moment, require_ttl

TTL, UNTIL = "session_ttl", "session_until"


class Lifetime(NamedTuple):
    """What a call asks for; mostly nothing."""

    ttl: int | None = None
    """Seconds after each activity."""
    until: datetime | None = None


def checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a context, with a moment as the text that is stored. Raises `InvalidContext` for a TTL that is not
    a positive whole number, a moment that has passed by this process's clock or has no time zone, and both together."""
    if values.get(TTL) is None and values.get(UNTIL) is None:
        return values
    lifetime = _read(values)
    if lifetime.until is None:
        return values
    if lifetime.until <= datetime.now(UTC):
        raise InvalidContext(f"{UNTIL} has passed; give a later moment.")
    return {**values, UNTIL: lifetime.until.isoformat()}


def lifetime_of(values: Mapping[str, Any], *, now: datetime) -> Lifetime:
    """What stored values ask for, in a turn that began `now`. A moment that passed while the message waited comes right
    after that: the session has ended when the turn has."""
    if values.get(TTL) is None and values.get(UNTIL) is None:
        return Lifetime()
    try:
        lifetime = _read(values)
    except InvalidContext:  # stored before these keys meant anything
        return Lifetime()
    if lifetime.until is None:
        return lifetime
    return Lifetime(until=max(lifetime.until, now + timedelta(microseconds=1)))


def _read(values: Mapping[str, Any]) -> Lifetime:
    ttl, until = values.get(TTL), values.get(UNTIL)
    try:
        if isinstance(until, str):
            until = datetime.fromisoformat(until)
        if ttl is not None:
            require_ttl(ttl)
        if until is not None:
            require_moment(until, ttl)
    except (ValueError, ConfigurationError) as error:
        raise InvalidContext(f"The context's {TTL} or {UNTIL} cannot be: {error}") from error
    return Lifetime(ttl, until)
