"""Device IDs: which ones are accepted.

The checkpointer itself takes any LangGraph thread ID; these rules are for code that receives IDs from outside.
"""

import re
from uuid import UUID

from moorline_checkpoint.errors import InvalidDeviceID

MAX_LENGTH = 128
"""Characters."""

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE)


def is_uuid(value: str) -> bool:
    """Whether the text is a UUID, in upper or lower case, with or without hyphens."""
    return _UUID.fullmatch(value) is not None


def validate_device_id(value: object) -> str:
    """The UUID in its canonical spelling (lower case, hyphens); raises InvalidDeviceID if it is not one."""
    text = str(value) if isinstance(value, UUID) else value
    if not isinstance(text, str) or not is_uuid(text):
        raise InvalidDeviceID(
            f"The device ID ({_described(value)}) is not a UUID; send one such as 0f8fad5b-d9cb-469f-a165-70867728950e."
        )
    return str(UUID(text))


def require_device_id(value: object, *, uuid_only: bool = False) -> str:
    """The device ID if it has 1 to 128 printable characters and no space, else InvalidDeviceID.

    A UUID, also one behind a colon (`web:UUID`), comes back in its canonical spelling, so that all its spellings are
    one device; with `uuid_only` the whole ID must be one.
    """
    if uuid_only:
        return validate_device_id(value)
    text = str(value) if isinstance(value, UUID) else value
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_LENGTH or " " in text or not text.isprintable():
        raise InvalidDeviceID(
            f"The device ID ({_described(value)}) cannot be used; "
            f"send 1 to {MAX_LENGTH} printable characters without spaces."
        )
    prefix, colon, own = text.rpartition(":")
    return f"{prefix}{colon}{UUID(own)}" if is_uuid(own) else str(text)


def _described(value: object) -> str:
    return f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
