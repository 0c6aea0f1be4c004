"""Which checkpoint is the latest: the recorded head, if the device's row has one."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from moorline_checkpoint.errors import InvalidDeviceID
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.state_key import StateKey
from tests.checkpoint.checkpoints import config, put

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_UUID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


async def latest(saver: DeviceCheckpointer, thread: str, ns: str = "") -> str | None:
    found = await saver.aget_tuple(config(thread, ns=ns))
    return found and found.checkpoint["id"]


async def record_heads(connection: "asyncpg.Connection[asyncpg.Record]", device: str, heads: str) -> None:
    await connection.execute(
        "INSERT INTO conversation_states (device_id, heads) VALUES ($1, $2)"
        " ON CONFLICT (device_id) DO UPDATE SET heads = excluded.heads",
        device,
        heads,
    )


async def heads_of(connection: "asyncpg.Connection[asyncpg.Record]", device: str) -> str | None:
    heads: str | None = await connection.fetchval(
        "SELECT heads::text FROM conversation_states WHERE device_id = $1", device
    )
    return heads


async def test_without_a_row_the_greatest_id_is_the_latest(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for own_id in ("5", "9", "7"):
        await put(saver, config("device"), own_id=own_id)

    assert await latest(saver, "device") == "9"
    assert await heads_of(connection, "device") is None


async def test_a_recorded_head_is_the_latest_whatever_its_id(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for thread in ("device", "other"):
        for ns in ("", "agent", "another"):
            for own_id in ("5", "9", "7"):
                await put(saver, config(thread, ns=ns), own_id=own_id)
    await record_heads(connection, "device", '{"": "5", "agent": "7"}')

    assert [await latest(saver, "device", ns) for ns in ("", "agent", "another")] == ["5", "7", "9"]
    assert [await latest(saver, "other", ns) for ns in ("", "agent", "another")] == ["9", "9", "9"]


async def test_a_checkpoint_put_outside_a_turn_moves_a_recorded_head_and_no_other(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await record_heads(connection, "device", '{"agent": "9"}')
    for ns in ("", "agent"):
        await put(saver, config("device", ns=ns), own_id="9")
        await put(saver, config("device", ns=ns), own_id="7")

    assert [await latest(saver, "device", ns) for ns in ("", "agent")] == ["9", "7"]
    assert await heads_of(connection, "device") == '{"agent": "7"}'


async def test_a_deleted_head_is_none_any_more(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await put(saver, config("device"), own_id="9", metadata={"run_id": "older"})
    await put(saver, config("device"), own_id="7", metadata={"run_id": "newer"})
    await record_heads(connection, "device", '{"": "7", "agent": "1"}')

    await saver.adelete_for_runs(["newer"])

    assert await latest(saver, "device") == "9"
    assert await heads_of(connection, "device") == '{"agent": "1"}'


async def test_a_copy_stands_where_the_original_stands(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for own_id in ("5", "9"):
        await put(saver, config("device"), own_id=own_id)
    await record_heads(connection, "device", '{"": "5"}')

    await saver.acopy_thread("device", "copy")

    assert await latest(saver, "copy") == "5"
    assert [one.checkpoint["id"] async for one in saver.alist(config("copy"))] == ["9", "5"]


async def test_pruning_keeps_the_head_and_not_the_greatest_id(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for own_id in ("5", "9"):
        await put(saver, config("device"), own_id=own_id)
    await record_heads(connection, "device", '{"": "5"}')

    await saver.aprune(["device"])

    assert [one.checkpoint["id"] async for one in saver.alist(config("device"))] == ["5"]
    await saver.aprune(["device"], strategy="delete")
    assert await latest(saver, "device") is None
    assert await heads_of(connection, "device") == "{}"


@pytest.fixture
async def uuid_saver(empty_dsn: str) -> AsyncIterator[DeviceCheckpointer]:
    """A checkpointer on a database whose own conversation_states is keyed by uuid."""
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "CREATE TABLE conversation_states (device_id uuid PRIMARY KEY, state jsonb NOT NULL DEFAULT '{}');"
        "CREATE TABLE device_tokens (token text, device_id uuid REFERENCES conversation_states);"
    )
    async with DeviceCheckpointer.from_conn_string(empty_dsn) as saver:
        await saver.setup()
        yield saver
    await connection.close()


@pytest.mark.parametrize("thread", [UUID, UUID.upper(), "thread-1", "\x00"])
async def test_where_the_key_is_a_uuid_any_thread_id_will_still_do(uuid_saver: DeviceCheckpointer, thread: str) -> None:
    await put(uuid_saver, config(thread), {"n": 1}, own_id="1")
    await put(uuid_saver, config(thread), {"n": 2}, own_id="2", metadata={"run_id": "run"})
    assert await latest(uuid_saver, thread) == "2"
    await uuid_saver.acopy_thread(thread, "copy")
    await uuid_saver.acopy_thread("copy", UUID)
    await uuid_saver.aprune(["copy"])
    await uuid_saver.adelete_for_runs(["run"])
    assert await latest(uuid_saver, thread) == "1"
    await uuid_saver.adelete_thread(thread)
    assert await latest(uuid_saver, thread) is None


async def test_where_the_key_is_a_uuid_heads_and_locks_are_found(
    uuid_saver: DeviceCheckpointer, empty_dsn: str
) -> None:
    connection = await asyncpg.connect(empty_dsn)
    for own_id in ("5", "9"):
        await put(uuid_saver, config(UUID), own_id=own_id)
        await put(uuid_saver, config("thread-1"), own_id=own_id)
    await record_heads(connection, UUID, '{"": "5"}')

    assert [await latest(uuid_saver, thread) for thread in ("thread-1", UUID)] == ["9", "5"]
    assert await uuid_saver.set_session_lock(UUID, "scheduling")
    assert await uuid_saver.get_session_lock(UUID) == "scheduling"
    assert [one.device_id async for one in uuid_saver.sessions()] == [UUID]
    assert await uuid_saver.clear_session_lock(UUID)
    await connection.close()


async def test_where_the_key_is_a_uuid_what_goes_out_together_finds_its_own_heads(
    uuid_saver: DeviceCheckpointer, empty_dsn: str
) -> None:
    connection = await asyncpg.connect(empty_dsn)
    threads = ["thread-1", UUID, "thread-2", OTHER_UUID.upper()]
    await asyncio.gather(*(put(uuid_saver, config(thread), own_id="9") for thread in threads))
    for thread in (UUID, OTHER_UUID):
        await record_heads(connection, thread, '{"": "9"}')

    await asyncio.gather(*(put(uuid_saver, config(thread), own_id="7") for thread in threads))

    found = await asyncio.gather(*(latest(uuid_saver, thread) for thread in threads))
    assert found == ["9", "7", "9", "7"]
    assert [await heads_of(connection, thread) for thread in (UUID, OTHER_UUID)] == ['{"": "7"}'] * 2
    await connection.close()


async def test_where_the_key_is_a_uuid_no_other_device_can_take_a_lock(uuid_saver: DeviceCheckpointer) -> None:
    assert await uuid_saver.get_session_lock("thread-1") is None
    assert not await uuid_saver.clear_session_lock("thread-1")
    with pytest.raises(InvalidDeviceID, match="UUID"):
        await uuid_saver.set_session_lock("thread-1", "scheduling")


async def test_a_row_that_another_table_refers_to_is_emptied_in_place_of_deleted(
    uuid_saver: DeviceCheckpointer, empty_dsn: str
) -> None:
    connection = await asyncpg.connect(empty_dsn)
    await put(uuid_saver, config(UUID))
    await uuid_saver.set_session_lock(UUID, "scheduling", ttl=60)
    await connection.execute("INSERT INTO device_tokens VALUES ('token', $1)", UUID)

    await uuid_saver.adelete_thread(UUID)

    assert await latest(uuid_saver, UUID) is None
    row = await connection.fetchrow(
        "SELECT active_agent, locked_at, last_active_at, session_ttl FROM conversation_states"
    )
    assert row is not None
    assert tuple(row) == (None, None, None, 86400)
    await connection.close()


async def test_a_mistake_in_another_argument_does_not_make_the_key_a_uuid(
    saver: DeviceCheckpointer,
) -> None:
    await saver.set_session_lock("device", "scheduling")
    with pytest.raises(asyncpg.DataError):
        await saver.database.fetchval("hold_turn", StateKey("device"), "no claim")
    assert await saver.get_session_lock("device") == "scheduling"
