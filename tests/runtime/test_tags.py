"""Every log line about a device has the device's tag, the one that `device_tag` returns."""

import logging
from uuid import UUID

import pytest
from pydantic import SecretStr

from moorline import Moorline, Settings

from .conftest import Open, agent

DEVICE = "0f8fad5b-d9cb-469f-a165-70867728950e"


async def test_the_lines_of_a_device_are_found_by_its_tag(
    open_moorline: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "moorline")
    async with open_moorline() as moorline:
        await moorline.run("hair please", {"device_id": DEVICE, "message_id": "m1"})
        await moorline.run("hair again", {"device_id": DEVICE, "message_id": "m1"})
        await moorline.run("bye", {"device_id": DEVICE})
        tag = await moorline.device_tag(DEVICE.upper().replace("-", ""))
        assert tag == await moorline.device_tag(str(UUID(DEVICE)))
    about = [record.getMessage() for record in caplog.records if tag in record.getMessage()]
    assert f"Session lock set: {tag} -> hair" in about
    assert f"Session lock retrieved: {tag} -> hair" in about
    assert f"Session lock cleared: {tag}" in about
    assert any(line.startswith(f"A message of {tag} came again with a different text") for line in about)
    assert "untagged" not in caplog.text
    assert DEVICE not in caplog.text


async def test_an_agent_that_is_gone_is_logged_with_the_tag(
    open_moorline: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_moorline() as moorline:
        await moorline.run("hair please", {"device_id": DEVICE})
    async with open_moorline(agents=[agent("nails"), agent("desk", keeps_session=False)]) as moorline:
        await moorline.run("nails please", {"device_id": DEVICE})
        tag = await moorline.device_tag(DEVICE)
    assert f"Agent hair, which holds {tag}, no longer exists; routing anew." in caplog.text


async def test_the_key_of_the_settings_goes_before_the_one_kept_in_the_database(settings: Settings) -> None:
    keyed = settings.model_copy(update={"log_key": SecretStr("a key of sixteen")})
    tags = []
    for each in (settings, keyed, keyed):
        async with Moorline(each, agents=[agent("hair")]) as moorline:
            tags.append(await moorline.device_tag(DEVICE))
    assert tags[0] != tags[1] == tags[2]
