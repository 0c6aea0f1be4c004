"""Which device IDs are accepted."""

from uuid import UUID

import pytest

from moorline_checkpoint.devices import require_device_id, validate_device_id
from moorline_checkpoint.errors import InvalidDeviceID

DEVICE = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize("value", [DEVICE, DEVICE.upper(), DEVICE.replace("-", ""), UUID(DEVICE)])
def test_a_uuid_in_any_spelling_becomes_canonical(value: object) -> None:
    assert validate_device_id(value) == DEVICE
    assert require_device_id(value, uuid_only=True) == DEVICE


@pytest.mark.parametrize(
    "value",
    ["", "device-1", f" {DEVICE}", f"{{{DEVICE}}}", f"urn:uuid:{DEVICE}", DEVICE[:-1], DEVICE + "\n", None, 7, b""],
)
def test_what_is_no_uuid_is_refused(value: object) -> None:
    with pytest.raises(InvalidDeviceID, match="is not a UUID; send one"):
        validate_device_id(value)
    with pytest.raises(InvalidDeviceID):
        require_device_id(value, uuid_only=True)


@pytest.mark.parametrize("value", ["a", "+4917012345678", "gerät-ü", "x" * 128, DEVICE])
def test_printable_ids_are_admitted_as_they_are(value: str) -> None:
    assert require_device_id(value) == value


@pytest.mark.parametrize("value", ["", " ", "a b", "a\n", "a\x00", "\ud800", "\u2003", "x" * 129, None, 7, ["a"]])
def test_other_ids_are_refused_without_repeating_them(value: object) -> None:
    with pytest.raises(InvalidDeviceID, match="send 1 to 128 printable characters") as refused:
        require_device_id(value)

    assert not isinstance(value, str) or len(value) < 5 or value not in str(refused.value)


@pytest.mark.parametrize("spelling", [DEVICE.upper(), DEVICE.replace("-", "")])
def test_every_spelling_of_a_uuid_is_one_device(spelling: str) -> None:
    assert require_device_id(spelling) == DEVICE
