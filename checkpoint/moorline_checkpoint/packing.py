"""Text and JSON as PostgreSQL can store them.

It stores neither NUL characters nor lone surrogates, so text and JSON are packed: such a character becomes an escape.
Packing maps different texts to different texts, so equality, and with it the containment of JSON (`@>`), means the same
before and after.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

_ESCAPE = "\x1a"
_UNSTORABLE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")
_FILES = "\x1a["
"""Where what refers to files begins. The escape of a packed text is followed by a digit."""
_ESCAPED_IN_JSON = "\\u001a"

# Made once: with settings other than its own, `json.dumps` makes a new encoder for each call.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_encode_packed = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def pack_text(text: str) -> str:
    """The text as PostgreSQL can store it; most texts come back unchanged."""
    # What cannot be stored is not printable either, which is quicker to check.
    return text if text.isprintable() else _UNSTORABLE.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text)


def unpack_text(text: str) -> str:
    """What `pack_text` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if _ESCAPE in text else text


def pack_said(text: str, files: Sequence[Mapping[str, Any]]) -> str:
    """A text with what refers to its files behind it, as JSON after an escape that no packed text has."""
    return f"{pack_text(text)}{_ESCAPE}{pack_json(list(files))}"


def unpack_said(stored: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """What `pack_said` or `pack_text` was given; no files for the latter."""
    text, escape, files = stored.partition(_FILES)
    return unpack_text(text), load_json(f"[{files}") if escape else ()


def pack_json(value: Any) -> str:
    """JSON text that a jsonb parameter takes, every string in it packed.

    Raises TypeError or ValueError for what JSON cannot hold, such as NaN.
    """
    text = _encode(value)
    if "\\u" in text and ("\\u0000" in text or _ESCAPED_IN_JSON in text or "\\ud" in text):
        text = _encode_packed(_packed(json.loads(text)))
    return text


def unpack_json(value: Any) -> Any:
    """What `pack_json` was given, from the parsed JSON."""
    match value:
        case str():
            return unpack_text(value)
        case list():
            return [unpack_json(item) for item in value]
        case dict():
            return {unpack_text(key): unpack_json(item) for key, item in value.items()}
        case _:
            return value


def parse_json(text: str) -> Any:
    """`json.loads`, in half the time for most texts."""
    try:
        return from_json(text, cache_strings="keys")  # values may be what people said
    except ValueError:  # with half a character in it, or very deep: Python's own takes more
        return json.loads(text)


def load_json(text: str) -> Any:
    """What `pack_json` was given, from the text of a jsonb column."""
    value = parse_json(text)
    return unpack_json(value) if _ESCAPED_IN_JSON in text or _ESCAPE in text else value


def _packed(value: Any) -> Any:
    match value:
        case str():
            return pack_text(value)
        case list():
            return [_packed(item) for item in value]
        case dict():
            return {pack_text(key): _packed(item) for key, item in value.items()}
        case _:
            return value
