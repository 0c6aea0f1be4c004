"""One identity a call: whoever may fill in a part of the context does not become somebody else with it."""

from typing import Any
from uuid import UUID

import pytest

from moorline import Moorline, Settings, TurnContext
from moorline.context import check_call, stored_device_id
from moorline.errors import ConfigurationError, InvalidContext, InvalidDeviceID

from .conftest import Open

DEVICE = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEYS = ["device_id", "user_id", "wa_id", "session_id"]


def device_of(context: Any, **settings: Any) -> str:
    return check_call("hello", context, Settings(**settings)).message.device_id


@pytest.mark.parametrize("key", KEYS)
async def test_the_device_is_found_under_each_of_its_names(open_moorline: Open, key: str) -> None:
    async with open_moorline() as moorline:
        await moorline.run("hair please", {key: "d1"})
        assert await moorline.session("d1") is not None


@pytest.mark.parametrize("verified", KEYS)
@pytest.mark.parametrize("added", KEYS)
async def test_a_second_identity_never_wins(open_moorline: Open, verified: str, added: str) -> None:
    if verified == added:
        return
    async with open_moorline() as moorline:
        with pytest.raises(InvalidContext, match="differ"):
            await moorline.run("hair please", {verified: "person", added: "attacker"})
        assert not await moorline.known("person")
        assert not await moorline.known("attacker")
        await moorline.run("hair please", {verified: "person", added: None})
        assert await moorline.known("person")


def test_the_same_identity_may_be_given_twice() -> None:
    assert device_of({"device_id": "d1", "user_id": "d1"}) == "d1"
    assert device_of({"device_id": UUID(DEVICE), "user_id": DEVICE.upper()}) == DEVICE
    with pytest.raises(InvalidContext, match="device_id and user_id differ"):
        device_of({"device_id": "42", "user_id": 42})


def test_only_the_chosen_keys_name_a_device() -> None:
    assert device_of({"wa_id": "49170"}, device_keys="wa_id, device_id") == "49170"
    for context in ({"session_id": "d1"}, {"wa_id": "49170", "session_id": "49170"}):
        with pytest.raises(InvalidContext, match=r"session_id cannot name the device here, only device_id, wa_id"):
            device_of(context, device_keys="wa_id,device_id")
    with pytest.raises(InvalidContext, match="give one of wa_id"):
        device_of({}, device_keys="wa_id")
    wrong: Any
    for wrong in ("", "phone", "wa_id,phone"):
        with pytest.raises(ConfigurationError, match="MOORLINE_DEVICE_KEYS"):
            Settings(device_keys=wrong)


async def test_the_same_id_on_another_channel_is_somebody_else(open_moorline: Open) -> None:
    number = "491701234567"
    async with open_moorline() as moorline:
        await moorline.run("hair please", {"wa_id": number, "channel": "whatsapp"})
        reply = await moorline.run("hair again", {"session_id": number, "channel": "web"})
        assert reply == "hair 1: hair again"
        assert await moorline.run("and me", {"wa_id": number, "channel": "whatsapp"}) == "hair 2: and me"
        assert [entry.texts for entry in await moorline.transcript(f"web:{number}")] == [("hair again",)]
        assert await moorline.erase(f"whatsapp:{number}")
        assert not await moorline.known(number)


async def test_the_channel_is_part_of_the_id_and_the_agents_see_it() -> None:
    call = check_call("hello", {"wa_id": "49170", "channel": "whatsapp"}, Settings())
    assert (call.message.device_id, call.message.values) == ("whatsapp:49170", {"channel": "whatsapp"})
    assert device_of(TurnContext(device_id="49170", channel="whatsapp")) == "whatsapp:49170"
    assert device_of({"wa_id": "49170", "channel": None}) == "49170"


@pytest.mark.parametrize("channel", ["", "a b", "web:chat", "web\n", "w" * 33, 7, ["web"], "gerät"])
def test_a_channel_that_could_be_read_in_two_ways_is_refused(channel: Any) -> None:
    with pytest.raises(InvalidContext, match="channel must be"):
        device_of({"wa_id": "49170", "channel": channel})


def test_a_channel_and_an_id_that_are_too_long_together_are_refused() -> None:
    with pytest.raises(InvalidDeviceID, match="1 to 128"):
        device_of({"device_id": "x" * 125, "channel": "web"})


@pytest.mark.parametrize("claimed", ["whatsapp:49170", "WhatsApp:49170", "sms:1", "whatsapp:"])
def test_nobody_claims_a_channel_with_an_id(claimed: str) -> None:
    for key in KEYS:
        with pytest.raises(InvalidDeviceID, match="pass the name of the channel"):
            device_of({key: claimed}, channels="WhatsApp, sms")
        assert device_of({key: claimed}) == claimed
    assert device_of({"session_id": claimed, "channel": "web"}, channels="whatsapp,sms") == f"web:{claimed}"
    assert device_of({"session_id": "matrix:!room"}, channels="whatsapp,sms") == "matrix:!room"
    with pytest.raises(ConfigurationError, match="MOORLINE_CHANNELS"):
        Settings(channels=frozenset({"whats:app"}))


def test_every_spelling_of_a_uuid_on_a_channel_is_one_device() -> None:
    for spelling in (DEVICE, DEVICE.upper(), DEVICE.replace("-", "")):
        for device_ids in ("any", "uuid"):
            settings = Settings(device_ids=device_ids)
            assert device_of({"device_id": spelling, "channel": "web"}, device_ids=device_ids) == f"web:{DEVICE}"
            assert stored_device_id(f"web:{spelling}", settings) == f"web:{DEVICE}"
    with pytest.raises(InvalidDeviceID):
        device_of({"device_id": f"web:{DEVICE}"}, device_ids="uuid")
    with pytest.raises(InvalidDeviceID):
        stored_device_id("web:49170", Settings(device_ids="uuid"))


async def test_a_message_that_was_set_aside_is_found_by_the_number_it_came_with(open_moorline: Open) -> None:
    def failing(request: Any) -> Any:
        raise RuntimeError

    context = {"wa_id": "49170", "channel": "whatsapp", "message_id": 4711}
    moorline: Moorline
    async with open_moorline(rules=failing) as moorline:
        for _ in range(4):
            with pytest.raises(Exception, match="failed"):
                await moorline.run("hair please", context)
    async with open_moorline() as moorline:
        assert await moorline.requeue("whatsapp:49170", 4711) == "hair 1: hair please"
