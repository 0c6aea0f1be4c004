"""The lock of a device by the names that session services give it: `Moorline` finds the device as turns do."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

import moorline
from moorline import InvalidDeviceID, Moorline, Settings, UsageError
from moorline_agents.transport import ModelReply, ModelRequest, rule_client
from tests.turns.runtimes import execute

DEVICE = "0f8fad5b-d9cb-469f-a165-70867728950e"
EXPIRED = "UPDATE conversation_states SET locked_at = locked_at - interval '25 hours', last_active_at = NULL"


def greets(request: ModelRequest) -> ModelReply:
    return ModelReply(text="Hello.")


@pytest.fixture
async def service(dsn: str) -> AsyncIterator[Moorline]:
    async with Moorline(Settings(database_url=dsn), client=lambda: rule_client(greets)) as opened:
        yield opened


async def test_a_lock_is_set_found_and_cleared(service: Moorline) -> None:
    assert await service.get_session_lock("device-123") is None
    assert await service.set_session_lock("device-123", "scheduling") is True
    assert await service.get_session_lock("device-123") == "scheduling"
    held = await service.session("device-123")
    assert held is not None
    assert (held.expires_at - held.locked_at).total_seconds() == pytest.approx(86_400, abs=1)
    assert await service.clear_session_lock("device-123") is True
    assert await service.get_session_lock("device-123") is None
    assert await service.clear_session_lock("device-123") is False


async def test_a_device_is_the_same_for_a_lock_and_for_a_turn(service: Moorline) -> None:
    assert await service.set_session_lock(DEVICE.upper(), "scheduling")
    reply = await service.run("hello", {"device_id": DEVICE})
    assert reply.agent == "scheduling"
    assert await service.get_session_lock(DEVICE.replace("-", "")) == "scheduling"
    for use in (service.get_session_lock, service.clear_session_lock):
        with pytest.raises(InvalidDeviceID):
            await use("a b")


@pytest.mark.parametrize("name", ["device_id", "user_id", "wa_id", "session_id"])
async def test_a_lock_by_any_name_of_the_device_is_the_turns(service: Moorline, name: str) -> None:
    assert await service.set_session_lock("491701234567", "scheduling")
    assert (await service.run("hello", {name: "491701234567"})).agent == "scheduling"


async def test_expired_locks_are_swept_and_counted(
    service: Moorline, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in range(3):
        await service.set_session_lock(f"device-{number}", "scheduling")
    await execute(dsn, f"{EXPIRED} WHERE device_id <> 'device-0'")
    assert await service.get_session_lock("device-1") is None
    assert await service.cleanup_expired_sessions() == 2
    assert "Cleaned up 2 expired sessions" in caplog.messages
    assert await service.get_session_lock("device-0") == "scheduling"


async def test_a_hundred_conversations_begin_at_once_by_user_id(service: Moorline) -> None:
    tasks = []
    for number in range(100):
        tasks.append(service.run("Hello", {"user_id": f"device-{number}"}))
    results = await asyncio.gather(*tasks)
    assert [str(reply) for reply in results] == ["Hello."] * 100
    assert {len(await service.transcript(f"device-{number}")) for number in range(0, 100, 9)} == {1}


async def test_it_has_to_be_open(dsn: str) -> None:
    with pytest.raises(UsageError):
        await Moorline(Settings(database_url=dsn)).get_session_lock("device-123")


def test_a_uuid_is_given_back_and_anything_else_is_an_error() -> None:
    assert moorline.validate_device_id(DEVICE.upper()) == DEVICE
    with pytest.raises(InvalidDeviceID):
        moorline.validate_device_id("device-123")
