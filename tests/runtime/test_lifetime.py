"""A call may say how long its session lasts: before the person, the agent, the row and the default."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorline import Moorline
from moorline.errors import InvalidContext
from moorline.lifetime import Lifetime, lifetime_of
from tests.turns.runtimes import execute

from .conftest import Open, agent


async def lives(moorline: Moorline) -> int:
    """Seconds that the session lives from its beginning, or 0."""
    session = await moorline.session("d1")
    return 0 if session is None else round((session.expires_at - session.locked_at).total_seconds())


async def test_a_call_precedes_the_person_and_that_the_agent(open_moorline: Open) -> None:
    async with open_moorline(agents=[agent("hair", session_ttl=80)]) as moorline:
        await moorline.run("hair", {"device_id": "d1"})
        assert await lives(moorline) == 80
        await moorline.set_ttl("d1", 70)
        assert await lives(moorline) == 70
        await moorline.run("hair", {"device_id": "d2", "session_ttl": 60})
        session = await moorline.session("d2")
        assert session is not None
        assert round((session.expires_at - session.locked_at).total_seconds()) == 60
        await moorline.set_ttl("d1", None)
        assert await lives(moorline) == 80


async def test_a_session_until_a_moment_stays_for_later_messages(open_moorline: Open) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with open_moorline(agents=[agent("hair", session_ttl=80)]) as moorline:
        await moorline.run("hair", {"device_id": "d1", "session_until": until})
        await moorline.run("hair", {"device_id": "d1"})
        session = await moorline.session("d1")
        assert session is not None
        assert session.expires_at == until
        await moorline.run("hair", {"device_id": "d1", "session_until": (until + timedelta(hours=1)).isoformat()})
        session = await moorline.session("d1")
        assert session is not None
        assert session.expires_at == until + timedelta(hours=1)


async def test_a_moment_that_passes_before_the_turn_ends_the_session_with_it(open_moorline: Open, dsn: str) -> None:
    now = datetime.now(UTC)
    assert lifetime_of({"session_until": "2026-01-01T00:00:00+00:00"}, now=now).until == now + timedelta(microseconds=1)
    async with open_moorline(agents=[agent("hair")]) as moorline:
        await moorline.run("hair", {"device_id": "d1", "session_until": now + timedelta(hours=1)})
        await execute(dsn, "UPDATE conversation_states SET session_until = $1", now)
        assert await moorline.session("d1") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_ttl": 0},
        {"session_ttl": -1},
        {"session_ttl": 2**31},
        {"session_ttl": "60"},
        {"session_ttl": True},
        {"session_until": "2020-01-01T00:00:00+00:00"},
        {"session_until": "tomorrow"},
        {"session_until": datetime(2100, 1, 1)},
        {"session_until": 7},
        {"session_until": datetime(2100, 1, 1, tzinfo=UTC), "session_ttl": 60},
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_stored(
    open_moorline: Open, dsn: str, wrong: dict[str, Any]
) -> None:
    async with open_moorline(agents=[agent("hair")]) as moorline:
        with pytest.raises(InvalidContext, match=r"session_"):
            await moorline.run("hair", {"device_id": "d1", **wrong})
    assert await execute(dsn, "SELECT FROM conversation_states") == []


def test_what_was_stored_before_these_keys_meant_anything_is_passed_by() -> None:
    for odd in ("a week", -1, ["?"]):
        assert lifetime_of({"session_ttl": odd}, now=datetime.now(UTC)) == Lifetime()
