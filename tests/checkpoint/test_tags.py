"""Device tags in logs: the same everywhere, and of no use for finding the device without the key."""

import logging
import re
from hashlib import blake2b

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.tags import UNTAGGED, DeviceTags
from moorline_migrations.errors import ConfigurationError, StoreUnavailable
from tests.checkpoint.conftest import Watched

DEVICE = "+4917012345678"
UNREACHABLE = "postgresql://u@127.0.0.1:1/d"


def unkeyed(device: str) -> str:
    return blake2b(device.encode(), digest_size=6).hexdigest()


async def test_a_device_has_one_tag_in_every_process_on_the_database(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    tag = await saver.device_tag(DEVICE)
    assert re.fullmatch("[0-9a-f]{12}", tag)
    assert await saver.device_tag("+4917012345679") != tag
    async with DeviceCheckpointer.from_conn_string(dsn) as other:
        assert await other.device_tag(DEVICE) == tag
    await connection.execute("UPDATE moorline_keys SET key = '\\x01' WHERE name = 'log'")
    async with DeviceCheckpointer.from_conn_string(dsn) as other:
        assert await other.device_tag(DEVICE) not in (tag, unkeyed(DEVICE))


async def test_each_database_gets_a_key_of_its_own_that_cannot_be_guessed(
    empty_dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with DeviceCheckpointer.from_conn_string(empty_dsn) as saver:
        await saver.setup()
        key = await saver.database.fetchval("log_key")
        assert await saver.device_tag(DEVICE) == blake2b(DEVICE.encode(), key=key, digest_size=6).hexdigest()
    assert len(key) == 32
    assert key != await connection.fetchval("SELECT key FROM moorline_keys WHERE name = 'log'")


async def test_a_given_key_needs_no_database_and_goes_before_the_one_kept_there(dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(UNREACHABLE, log_key="a key of sixteen") as away:
        tag = await away.device_tag(DEVICE)
    async with DeviceCheckpointer.from_conn_string(dsn, log_key="a key of sixteen") as saver:
        assert await saver.device_tag(DEVICE) == tag
    async with DeviceCheckpointer.from_conn_string(dsn, log_key="a key of seventeen") as saver:
        assert await saver.device_tag(DEVICE) != tag


def test_until_the_key_is_known_nothing_is_tagged() -> None:
    tags = DeviceTags()
    assert (tags.ready, tags.of(DEVICE)) == (False, UNTAGGED)
    tags.use(b"key")
    assert tags.ready
    assert tags.of(DEVICE) not in (UNTAGGED, unkeyed(DEVICE))
    assert len(tags.of("\ud800")) == 12


async def test_without_its_key_the_database_is_asked_in_vain(dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(UNREACHABLE) as saver:
        with pytest.raises(StoreUnavailable):
            await saver.device_tag(DEVICE)


async def test_a_saver_reads_the_key_with_the_first_lock_that_it_logs(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    saver, statements = watched.saver, watched.statements
    caplog.set_level(logging.WARNING)
    await saver.set_session_lock(DEVICE, "scheduling")
    assert not any("moorline_keys" in statement for statement in statements)
    caplog.set_level(logging.INFO)
    for agent in ("billing", "scheduling"):
        await saver.set_session_lock(DEVICE, agent)
    assert sum("moorline_keys" in statement for statement in statements) == 1
    tag = saver.database.tags.of(DEVICE)
    assert tag != UNTAGGED
    assert [record.getMessage() for record in caplog.records] == [
        f"Session lock set: {tag} -> billing",
        f"Session lock set: {tag} -> scheduling",
    ]


async def test_a_key_that_cannot_be_read_keeps_no_lock_from_being_set(
    saver: DeviceCheckpointer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    await connection.execute("DELETE FROM moorline_keys")
    assert await saver.set_session_lock(DEVICE, "scheduling")
    assert await saver.get_session_lock(DEVICE) == "scheduling"
    assert [record.getMessage() for record in caplog.records] == [f"Session lock set: {UNTAGGED} -> scheduling"]
    with pytest.raises(ConfigurationError, match="MOORLINE_LOG_KEY"):
        await saver.device_tag(DEVICE)
