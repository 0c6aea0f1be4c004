"""Conversations and appointments, from beginning to end, where a stranger has planted all they could: none of it is
run.

Everything planted raises, so it is enough that everything works.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import asyncpg
import pytest

from moorline.errors import LinkRefused
from moorline_agents.scheduling.demo import seed_demo
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import SHIPPED, migrate
from tests.agents.scheduling.conftest import Business
from tests.checkpoint.test_conformance import test_all_eight_capabilities_are_detected_and_pass_all_81_tests  # noqa: F401
from tests.sql.probe import Connection
from tests.turns.talks import Step, process, processes, take

BACKENDS = ["uuid_key", "uuid_device", "repeated_key"]
DEVICE = "00000000-0000-4000-8000-000000000009"


async def test_a_conversation_goes_on_in_any_process_and_is_erased(dsn: str) -> None:
    said = ["hello", "hand over to diary", "mood glad", "and now", "fail", "bye", "hand over to nails", "start over"]
    async with processes(dsn, 2, keep_turns=2) as moorlines:
        for number, text in enumerate(said * 2):
            assert await take(moorlines[number % 2], Step("d1", text, number % 2)) != "StoreUnavailable"
        assert len(await moorlines[0].transcript("d1")) > len(said)
        await moorlines[0].session("d1")
        assert await moorlines[0].recover() == 0
        assert await moorlines[0].dead_letters() == []
        await moorlines[0].erase("d1")
        assert await moorlines[1].transcript("d1") == []


async def test_what_is_old_goes_and_locks_expire(dsn: str, connection: Connection) -> None:
    async with process(dsn) as moorline:
        await take(moorline, Step("d1", "hello", 0))
    for table, columns in {
        "states": ["locked_at", "last_active_at"],
        "messages": ["received_at"],
        "turns": ["started_at", "committed_at"],
    }.items():
        for column in columns:
            await connection.execute(
                f"UPDATE conversation_{table} SET {column} = {column} - $1::interval",  # noqa: S608
                timedelta(days=9),
            )
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        assert await saver.cleanup_expired_sessions() == 1
        assert await remove_older(saver.database, days=3) > 0
        assert await saver.set_session_lock("d1", "hair", ttl=60)
        assert await saver.set_session_lock("d1", "hair")
        assert await saver.get_session_lock("d1") == "hair"
        assert [session.device_id async for session in saver.sessions()] == ["d1"]
        assert await saver.clear_session_lock("d1")


async def test_appointments_are_found_booked_moved_and_cancelled(dsn: str, salon: Business) -> None:
    assert (await salon.call("d", "find_slots", service="Haircut"))["slots"]
    booked = await salon.call("d", "book", service="Haircut", start="2026-06-01T10:00")
    assert (await salon.call("d", "book", service="Haircut", start="2026-06-01T10:00"))["status"] == "already booked"
    reference = booked["appointment"]["reference"]
    moved = await salon.call("d", "move", reference=reference, start="2026-06-02T10:00")
    assert (await salon.call("d", "list_appointments"))["appointments"] == [moved["appointment"]]
    assert (await salon.call("d", "cancel", reference=reference))["status"] == "cancelled"
    async with process(dsn) as moorline:
        await take(moorline, Step("d", "hello", 0))
        await salon.call("d", "book", service="Haircut", start="2026-06-03T10:00")
        await moorline.erase("d")


async def test_devices_are_linked_unlinked_and_erased(dsn: str, connection: Connection) -> None:
    async with processes(dsn, 2) as moorlines:
        one, other = moorlines
        for device in ("d1", "d2", "d3"):
            await take(one, Step(device, "hello", 0))
        with pytest.raises(LinkRefused):
            await one.link("d2", "0000-0000")
        await one.link("d2", await other.link_code("d1"))
        for device in ("d1", "d2"):
            assert "was shown" in await take(other, Step(device, "and now", 1))
        for device in ("d3", "d4"):
            await other.run("hello", {"device_id": device, "person_id": "ann", "message_id": "m1"})
        await one.run("hello", {"device_id": "d3", "person_id": "bob"})
        assert len(await one.devices("d2")) == 2
        assert await one.transcript("d2", own=True)
        assert not await other.stop("d2", "m1")
        assert await one.requeue("d2", "m1") is None
        assert await one.pending("d2") is None
        assert await other.unlink("d2")
        assert await other.unlink("d3")
        assert await connection.fetchval("SELECT public.moorline_forget_codes()") == 0
        await one.link("d1", await other.link_code("d2"))
        assert await other.erase("d2")
        assert await other.erase("d4", scope="person")
        assert await other.erase("d1", scope="person")


async def test_a_demonstration_is_filled_in(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        assert await seed_demo(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", BACKENDS)
async def test_a_backends_own_table_is_adopted_and_both_go_on(
    planted_dsn: str, backend: Callable[[str], str], name: str
) -> None:
    theirs = await asyncpg.connect(planted_dsn)
    try:
        await theirs.execute(backend(name))
        await migrate(planted_dsn, components=SHIPPED)
        async with process(planted_dsn) as moorline, DeviceCheckpointer.from_conn_string(planted_dsn) as saver:
            assert "was shown" in await take(moorline, Step(DEVICE, "hello", 0))
            assert await saver.set_session_lock(DEVICE, "nails")
            assert await saver.get_session_lock(DEVICE) == "nails"
            assert await saver.cleanup_expired_sessions() >= 0
            await theirs.execute("UPDATE conversation_states SET active_agent = 'hair'")
            await theirs.execute("UPDATE conversation_states SET active_agent = NULL")
            await theirs.fetch("SELECT device_id FROM expired_sessions")
            await moorline.erase(DEVICE)
    finally:
        await theirs.close()
