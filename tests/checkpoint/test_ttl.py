"""How long a session lives: what its call asked for, else its person's TTL, its agent's, its row's, or the default."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns
from moorline_migrations.errors import ConfigurationError
from tests.turns.claims import claim, message, record
from tests.turns.runtimes import execute

DEVICE = "d1"
LATER = """
UPDATE conversation_states SET locked_at = locked_at - $1::interval, last_active_at = last_active_at - $1::interval,
    session_until = session_until - $1::interval
"""


async def let_pass(dsn: str, seconds: float) -> None:
    """Moves all times back, as if that much time had passed."""
    await execute(dsn, LATER, timedelta(seconds=seconds))


async def lives(saver: DeviceCheckpointer) -> int:
    """Seconds from the session's beginning to its end, or 0."""
    session = await saver.get_session(DEVICE)
    return 0 if session is None else round((session.expires_at - session.locked_at).total_seconds())


@pytest.mark.parametrize(
    "given",
    [{name for name, has in zip("cpar", case, strict=True) if has} for case in itertools.product([0, 1], repeat=4)],
)
async def test_the_call_precedes_the_person_the_agent_the_row_and_the_default(dsn: str, given: set[str]) -> None:
    ttls = {"c": 60, "p": 70, "a": 80, "r": 90}
    async with DeviceCheckpointer.from_conn_string(dsn, default_ttl=100) as saver:
        if "r" in given:
            await saver.set_session_lock(DEVICE, "hair", ttl=ttls["r"])
            await saver.clear_session_lock(DEVICE)
        if "p" in given:
            await saver.set_person_ttl(DEVICE, ttls["p"])
        await saver.set_session_lock(
            DEVICE,
            "hair",
            ttl=ttls["c"] if "c" in given else None,
            agent_ttl=ttls["a"] if "a" in given else None,
        )
        assert await lives(saver) == next((ttls[name] for name in "cpar" if name in given), 100)


async def test_what_a_call_asked_for_stays_as_long_as_its_lock(dsn: str, saver: DeviceCheckpointer) -> None:
    await saver.set_session_lock(DEVICE, "hair", ttl=3600)
    await saver.set_session_lock(DEVICE, "hair", agent_ttl=60)
    assert await lives(saver) == 3600
    await saver.set_session_lock(DEVICE, "nails", agent_ttl=60)
    assert await lives(saver) == 60
    await saver.set_session_lock(DEVICE, "hair", ttl=3600)
    await saver.clear_session_lock(DEVICE)
    await saver.set_session_lock(DEVICE, "hair", agent_ttl=60)
    assert await lives(saver) == 60


async def test_a_turn_counts_in_the_same_order(dsn: str, saver: DeviceCheckpointer) -> None:
    turns = Turns(saver.database, default_ttl=100)

    async def after(number: int, *, ttl: int | None = None, agent_ttl: int | None = None) -> int:
        turn = await claim(turns, message(f"m{number}"))
        turn.set_lock("hair", ttl, agent_ttl=agent_ttl)
        await turns.commit(turn, record(turn))
        session = await saver.get_session(DEVICE)
        assert session is not None
        used = await execute(dsn, "SELECT last_active_at FROM conversation_states")
        seconds: float = (session.expires_at - used[0]["last_active_at"]).total_seconds()
        return round(seconds)

    assert await after(1) == 100
    assert await after(2, agent_ttl=80) == 80
    await saver.set_person_ttl(DEVICE, 70)
    assert await after(3, agent_ttl=80) == 70
    assert await after(4, ttl=60, agent_ttl=80) == 60
    assert await after(5, agent_ttl=80) == 60
    await saver.clear_session_lock(DEVICE)
    assert await after(6, agent_ttl=80) == 70
    await saver.set_person_ttl(DEVICE, None)
    assert await after(7) == 80


async def test_a_person_s_ttl_counts_at_once_and_revives_nothing(dsn: str, saver: DeviceCheckpointer) -> None:
    await saver.set_session_lock(DEVICE, "hair", agent_ttl=60)
    await saver.set_person_ttl(DEVICE, 600)
    await let_pass(dsn, 100)
    assert await saver.get_session_lock(DEVICE) == "hair"
    await saver.set_person_ttl(DEVICE, None)
    assert await saver.get_session_lock(DEVICE) is None
    await saver.set_person_ttl(DEVICE, 86_400)
    assert await saver.get_session_lock(DEVICE) is None
    (ended,) = await execute(dsn, "SELECT why, ended_at - locked_at AS lasted FROM conversation_sessions")
    assert (ended["why"], ended["lasted"]) == ("expired", timedelta(seconds=60))


async def test_a_person_s_ttl_may_come_before_the_first_message(saver: DeviceCheckpointer) -> None:
    await saver.set_person_ttl(DEVICE, 70)
    assert await saver.get_session_lock(DEVICE) is None
    await saver.set_session_lock(DEVICE, "hair", agent_ttl=80)
    assert await lives(saver) == 70


async def test_a_session_until_a_moment_ends_then_whatever_happens(dsn: str, saver: DeviceCheckpointer) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    await saver.set_person_ttl(DEVICE, 60)
    await saver.set_session_lock(DEVICE, "hair", until=until)
    session = await saver.get_session(DEVICE)
    assert session is not None
    assert session.expires_at == until
    await let_pass(dsn, 3000)
    assert await saver.get_session_lock(DEVICE) == "hair"
    turns = Turns(saver.database, default_ttl=100)
    turn = await claim(turns, message("m1"))
    assert turn.holder == "hair"
    turn.set_lock("hair", None, agent_ttl=86_400)
    await turns.commit(turn, record(turn))
    await let_pass(dsn, 500)
    assert await saver.get_session_lock(DEVICE) == "hair"
    await let_pass(dsn, 200)
    assert await saver.get_session_lock(DEVICE) is None
    assert (await claim(turns, message("m2"))).holder is None
    (waits,) = await execute(dsn, "SELECT expired_at FROM expired_sessions")
    await let_pass(dsn, 100)
    await execute(dsn, "UPDATE conversation_states SET claim_id = NULL")
    assert await saver.cleanup_expired_sessions() == 1
    assert [row["why"] for row in await execute(dsn, "SELECT why FROM conversation_sessions")] == ["expired"]
    assert waits["expired_at"] < datetime.now(UTC)


async def test_the_next_lock_does_not_inherit_the_moment(saver: DeviceCheckpointer) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    for end in ("clear", "take"):
        await saver.set_session_lock(DEVICE, "hair", until=until)
        if end == "clear":
            await saver.clear_session_lock(DEVICE)
        await saver.set_session_lock(DEVICE, "nails", agent_ttl=60)
        assert await lives(saver) == 60


async def test_a_turn_may_set_a_lock_until_a_moment(saver: DeviceCheckpointer) -> None:
    turns = Turns(saver.database, default_ttl=100)
    until = datetime.now(UTC) + timedelta(hours=1)
    turn = await claim(turns, message("m1"))
    turn.set_lock("hair", None, until=until)
    await turns.commit(turn, record(turn))
    session = await saver.get_session(DEVICE)
    assert session is not None
    assert session.expires_at == until


async def test_what_cannot_be_is_refused_and_changes_nothing(
    saver: DeviceCheckpointer, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"until": datetime.now(UTC) - timedelta(seconds=5)}, "has passed on the database's clock"),
        ({"until": later.replace(tzinfo=None)}, "datetime with a time zone"),
        ({"until": later.isoformat()}, "datetime with a time zone"),
        ({"until": later, "ttl": 60}, "not both"),
        ({"agent_ttl": 0}, "positive whole number"),
        ({"agent_ttl": 2**31}, "positive whole number"),
    ]
    for given, told in wrong:
        with pytest.raises(ConfigurationError, match=told):
            await saver.set_session_lock(DEVICE, "hair", **given)
    ttls: list[Any] = [0, -1, 2**31, 1.5, "60", True]
    for ttl in ttls:
        with pytest.raises(ConfigurationError, match="positive whole number"):
            await saver.set_person_ttl(DEVICE, ttl)
    assert await connection.fetchval("SELECT count(*) FROM conversation_states") == 0
    await saver.set_person_ttl(DEVICE, 2**31 - 1)
    await saver.set_session_lock(DEVICE, "hair", until=datetime.max.replace(tzinfo=UTC))
    assert await saver.get_session_lock(DEVICE) == "hair"


async def test_a_device_that_leads_elsewhere_means_that_conversation(dsn: str, saver: DeviceCheckpointer) -> None:
    await execute(dsn, "INSERT INTO conversation_states (device_id, leads_to) VALUES ('d2', 'd1')")
    await saver.set_person_ttl("d2", 70)
    await saver.set_session_lock("d2", "hair", agent_ttl=80)
    assert await saver.get_session_lock("d2") == await saver.get_session_lock("d1") == "hair"
    assert await lives(saver) == 70
    assert await saver.clear_session_lock("d2")
    assert [row["device_id"] for row in await execute(dsn, "SELECT device_id FROM conversation_sessions")] == ["d1"]


async def test_the_functions_of_earlier_code_do_as_before(
    dsn: str, saver: DeviceCheckpointer, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("SELECT moorline_set_lock('d1', 'hair', 60, 100)")
    assert (await saver.get_session_lock(DEVICE), await lives(saver)) == ("hair", 60)
    assert await connection.fetchval("SELECT moorline_clear_lock('d1')")
    assert not await connection.fetchval("SELECT moorline_clear_lock('d1')")
    await connection.execute("SELECT moorline_set_lock('d1', 'hair', NULL, 100)")
    await let_pass(dsn, 61)
    assert not await connection.fetchval("SELECT moorline_clear_lock('d1')")
    await connection.execute("SELECT moorline_set_lock('d1', 'hair', NULL, 100)")
    await let_pass(dsn, 61)
    assert await connection.fetchval("SELECT moorline_clear_expired_locks(500)") == 1
    told = await connection.fetch("SELECT why FROM conversation_sessions ORDER BY ended_at")
    assert sorted(row["why"] for row in told) == ["cleared", "expired", "expired"]
