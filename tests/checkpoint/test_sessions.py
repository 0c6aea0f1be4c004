"""Session locks: taken, kept, expired, cleared, swept, listed and logged."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from moorline_checkpoint import sessions as sessions_module
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import ConfigurationError, StoreUnavailable
from tests.checkpoint.checkpoints import config, put

DEVICE = "device-1"


async def let_pass(connection: "asyncpg.Connection[asyncpg.Record]", seconds: int, device: str = DEVICE) -> None:
    """Moves the device's times back, as if that much time had passed."""
    await connection.execute(
        "UPDATE conversation_states SET locked_at = locked_at - $2::interval,"
        " last_active_at = last_active_at - $2::interval WHERE device_id = $1",
        device,
        timedelta(seconds=seconds),
    )


async def row(connection: "asyncpg.Connection[asyncpg.Record]", device: str = DEVICE) -> asyncpg.Record:
    found = await connection.fetchrow(
        "SELECT active_agent, locked_at, last_active_at, session_ttl FROM conversation_states WHERE device_id = $1",
        device,
    )
    assert found is not None
    return found


async def test_a_lock_is_taken_handed_over_and_cleared(saver: DeviceCheckpointer) -> None:
    assert await saver.get_session_lock(DEVICE) is None
    assert not await saver.clear_session_lock(DEVICE)
    assert await saver.set_session_lock(DEVICE, "scheduling")
    assert await saver.get_session_lock(DEVICE) == "scheduling"
    assert await saver.set_session_lock(DEVICE, "billing")
    assert await saver.get_session_lock(DEVICE) == "billing"
    assert await saver.get_session_lock("device-2") is None
    assert await saver.clear_session_lock(DEVICE)
    assert await saver.get_session_lock(DEVICE) is None
    assert not await saver.clear_session_lock(DEVICE)


async def test_a_lock_expires_at_its_time_unswept(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock(DEVICE, "scheduling", ttl=60)
    await let_pass(connection, 50)
    assert await saver.get_session_lock(DEVICE) == "scheduling"
    await let_pass(connection, 10)
    assert await saver.get_session_lock(DEVICE) is None
    assert [one async for one in saver.sessions()] == []
    assert not await saver.clear_session_lock(DEVICE)
    assert (await row(connection))["active_agent"] is None


async def test_activity_keeps_a_lock_and_only_another_lock_moves_its_time(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock(DEVICE, "scheduling", ttl=60)
    await let_pass(connection, 50)
    before = await row(connection)
    await saver.set_session_lock(DEVICE, "scheduling")
    renewed = await row(connection)
    assert renewed["locked_at"] == before["locked_at"]
    assert renewed["last_active_at"] - before["last_active_at"] >= timedelta(seconds=50)
    await let_pass(connection, 50)
    assert await saver.get_session_lock(DEVICE) == "scheduling"

    before = await row(connection)
    await saver.set_session_lock(DEVICE, "billing")
    assert (await row(connection))["locked_at"] - before["locked_at"] >= timedelta(seconds=100)


async def test_taking_an_expired_lock_again_is_a_new_lock(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock(DEVICE, "scheduling", ttl=60)
    await let_pass(connection, 61)
    before = await row(connection)
    await saver.set_session_lock(DEVICE, "scheduling")
    assert (await row(connection))["locked_at"] - before["locked_at"] >= timedelta(seconds=61)


async def test_the_argument_precedes_the_rows_ttl_and_that_the_default(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn, default_ttl=300) as saver:

        async def ttl_after(ttl: int | None) -> int:
            await saver.set_session_lock(DEVICE, "scheduling", ttl=ttl)
            return int((await row(connection))["session_ttl"])

        assert [await ttl_after(ttl) for ttl in (None, 60, None, 90)] == [300, 60, 60, 90]
        await saver.clear_session_lock(DEVICE)
        assert await ttl_after(None) == 90


async def test_a_backend_that_writes_only_agent_and_time_is_honoured(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(
        "INSERT INTO conversation_states (device_id, active_agent, locked_at) VALUES ($1, 'scheduling', now())", DEVICE
    )
    assert await saver.get_session_lock(DEVICE) == "scheduling"
    await let_pass(connection, 86_400)
    assert await saver.get_session_lock(DEVICE) is None


async def test_a_ttl_is_a_positive_whole_number_of_seconds(saver: DeviceCheckpointer) -> None:
    wrong: list[Any] = [0, -1, 2**31, 1.5, "60", True]
    for ttl in wrong:
        with pytest.raises(ConfigurationError, match="positive whole number of seconds"):
            await saver.set_session_lock(DEVICE, "scheduling", ttl=ttl)
        with pytest.raises(ConfigurationError, match="positive whole number of seconds"):
            DeviceCheckpointer.from_conn_string("postgresql://", default_ttl=ttl)
    assert await saver.get_session_lock(DEVICE) is None
    assert await saver.set_session_lock(DEVICE, "scheduling", ttl=2**31 - 1)


async def test_an_agent_name_that_the_column_cannot_hold_is_refused(saver: DeviceCheckpointer) -> None:
    wrong: list[Any] = ["", "x" * 51, "a\x00", "a\n", None]
    for agent in wrong:
        with pytest.raises(ConfigurationError, match="1 to 50 printable characters"):
            await saver.set_session_lock(DEVICE, agent)
    assert await saver.set_session_lock(DEVICE, "x" * 50)


async def test_the_sweep_drops_expired_locks_and_keeps_all_else(
    saver: DeviceCheckpointer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions_module, "BATCH", 3)
    for n in range(10):
        await saver.set_session_lock(f"expired-{n}", "scheduling", ttl=60)
        await let_pass(connection, 60, f"expired-{n}")
        await saver.set_session_lock(f"live-{n}", "scheduling", ttl=60)
    stored = await put(saver, config("expired-1"), {"n": 1})
    before = await connection.fetch("SELECT * FROM expired_sessions")

    assert await saver.cleanup_expired_sessions() == len(before) == 10
    assert await saver.cleanup_expired_sessions() == 0

    assert [one.device_id async for one in saver.sessions()] == [f"live-{n}" for n in range(10)]
    assert await connection.fetchval("SELECT count(*) FROM conversation_states") == 20
    swept = await row(connection, "expired-1")
    assert (swept["active_agent"], swept["locked_at"], swept["session_ttl"]) == (None, None, 60)
    assert await saver.aget_tuple(stored) is not None


async def test_the_sweep_does_not_wait_for_a_device_that_is_in_use(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for device in ("in use", "idle"):
        await saver.set_session_lock(device, "scheduling", ttl=60)
        await let_pass(connection, 60, device)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM conversation_states WHERE device_id = 'in use' FOR UPDATE")
        assert await saver.cleanup_expired_sessions() == 1
    assert await saver.cleanup_expired_sessions() == 1


async def test_sessions_are_listed_with_their_times(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await saver.set_session_lock("b\x00", "billing", ttl=90)
    await saver.set_session_lock("a", "scheduling", ttl=60)
    await put(saver, config("c"))

    listed = [one async for one in saver.sessions()]

    assert [(one.device_id, one.active_agent) for one in listed] == [("a", "scheduling"), ("b\x00", "billing")]
    assert [one.expires_at - one.locked_at for one in listed] == [timedelta(seconds=60), timedelta(seconds=90)]
    assert listed[0].locked_at == (await row(connection, "a"))["locked_at"]


async def test_rows_of_another_backend_without_our_key_are_left_alone(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(
        "ALTER TABLE conversation_states DROP CONSTRAINT conversation_states_pkey, ALTER COLUMN device_id DROP NOT NULL"
    )
    for age in ("0 s", "9 days"):
        await connection.execute(
            "INSERT INTO conversation_states (active_agent, locked_at) VALUES ('old', now() - $1::text::interval)", age
        )

    assert [one async for one in saver.sessions()] == []
    assert await saver.cleanup_expired_sessions() == 0
    assert await connection.fetchval("SELECT count(active_agent) FROM conversation_states") == 2


async def test_many_may_take_and_clear_a_lock_at_once(saver: DeviceCheckpointer) -> None:
    await asyncio.gather(
        *(saver.set_session_lock(DEVICE, f"agent-{n}") for n in range(20)),
        *(saver.clear_session_lock(DEVICE) for _ in range(20)),
        *(saver.get_session_lock(DEVICE) for _ in range(20)),
    )
    await saver.set_session_lock(DEVICE, "scheduling")
    assert sorted(await asyncio.gather(*(saver.clear_session_lock(DEVICE) for _ in range(20)))) == [False] * 19 + [True]


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "moorline.session" and record.levelno == level
    ]


async def test_the_log_says_what_happened_and_names_no_device(
    saver: DeviceCheckpointer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tag = await saver.device_tag(DEVICE)
    await saver.set_session_lock(DEVICE, "scheduling")
    await saver.get_session_lock(DEVICE)
    await saver.clear_session_lock(DEVICE)
    await saver.clear_session_lock(DEVICE)
    await saver.get_session_lock(DEVICE)
    await saver.cleanup_expired_sessions()

    assert said(caplog, logging.INFO) == [
        f"Session lock set: {tag} -> scheduling",
        f"Session lock cleared: {tag}",
        "Cleaned up 0 expired sessions",
    ]
    debugged = said(caplog, logging.DEBUG)
    assert f"Session lock retrieved: {tag} -> scheduling" in debugged
    assert f"Session lock retrieved: {tag} -> None" in debugged
    for doing in ("setting", "retrieval", "clearing"):
        assert any(line.startswith(f"Session lock {doing} of {tag} took ") for line in debugged)
    assert any(line.startswith("Session lock cleanup took ") and line.endswith(" ms") for line in debugged)
    assert said(caplog, logging.ERROR) == []
    assert DEVICE not in caplog.text


async def test_a_failure_is_logged_by_its_kind_and_names_no_device(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    unreachable = "postgresql://u@127.0.0.1:1/d"
    async with DeviceCheckpointer.from_conn_string(unreachable, log_key="a key of sixteen") as saver:
        tag = await saver.device_tag(DEVICE)
        with pytest.raises(StoreUnavailable):
            await saver.set_session_lock(DEVICE, "scheduling")
        with pytest.raises(StoreUnavailable):
            await saver.get_session_lock(DEVICE)
        with pytest.raises(StoreUnavailable):
            await saver.clear_session_lock(DEVICE)
        with pytest.raises(StoreUnavailable):
            await saver.cleanup_expired_sessions()

    assert said(caplog, logging.ERROR) == [
        f"Session lock setting of {tag} failed: StoreUnavailable",
        f"Session lock retrieval of {tag} failed: StoreUnavailable",
        f"Session lock clearing of {tag} failed: StoreUnavailable",
        "Session lock cleanup failed: StoreUnavailable",
    ]
    assert DEVICE not in caplog.text
