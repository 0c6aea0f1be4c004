"""The parts of the scheduling agent; its conversations are tested with the manager."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from moorline_agents.scheduling.agent import scheduling
from moorline_agents.tools import Connection, ToolContext
from moorline_migrations.errors import ConfigurationError


@asynccontextmanager
async def no_transaction() -> AsyncIterator[Connection]:
    raise AssertionError("instructions need no database")
    yield


def told(now: str, **settings: Any) -> str:
    context = ToolContext(device_id="d", now=datetime.fromisoformat(now), values={}, transaction=no_transaction)
    briefing = scheduling(**settings).briefing
    assert briefing is not None
    return str(briefing(context))


def test_it_keeps_the_session_and_has_the_five_tools() -> None:
    agent = scheduling(session_ttl=600)
    assert (agent.name, agent.keeps_session, agent.session_ttl) == ("scheduling", True, 600)
    effects = {tool.name: tool.effect for tool in agent.own_tools}
    assert effects == {
        "find_slots": "none",
        "book": "database",
        "list_appointments": "none",
        "move": "database",
        "cancel": "database",
    }


def test_no_tool_takes_a_device() -> None:
    for tool in scheduling().own_tools:
        assert not any("device" in name for name in tool.schema["function"]["parameters"]["properties"])


def test_it_is_told_the_time_in_its_zone() -> None:
    said = told("2026-06-01T22:30+00:00", time_zone="Europe/Berlin")
    assert "Now it is Tuesday 2 June 2026, 00:30, time zone Europe/Berlin." in said
    assert "Now it is Monday 1 June 2026, 22:30, time zone UTC." in told("2026-06-01T22:30+00:00")


@pytest.mark.parametrize("time_zone", ["", "Mars/Olympus", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused_at_once(time_zone: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time zone known here"):
        scheduling(time_zone=time_zone)


def test_a_schema_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="cannot name a schema"):
        scheduling(schema="No Schema")
