"""What a file is, by its bytes and never by what its sender says."""

from __future__ import annotations

import re
from collections.abc import Collection

from moorline.errors import InvalidMessage

TEXT = "text/plain"

_UNSAID = frozenset({"", "*/*", "application/octet-stream"})
"""Types by which a sender says nothing."""

_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "application/x-pdf": "application/pdf"}

_TEXTS = frozenset({TEXT, "text/csv", "text/markdown", "text/tab-separated-values", "application/json"})
"""Types that are text and do nothing; all are kept as plain text."""

_MARKUP = re.compile(r"<(\?xml|!--|!doctype|[a-z][\w:-]{0,99}[\s/>])", re.IGNORECASE)
"""How HTML and SVG begin, in which scripts may be."""

_CONTROL = bytes((*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F))
"""Characters that no text has."""


def checked_type(data: bytes, *, claimed: str | None, allowed: Collection[str], called: str = "A file") -> str:
    """The media type of the bytes. Raises `InvalidMessage`, in which the file is `called` so, if it is none of those
    that are allowed, or not what the sender claims, which may be `image/*`."""
    if not data:
        raise InvalidMessage(f"{called} is empty.")
    found = _found(data)
    named = (claimed or "").partition(";")[0].strip().lower()
    wanted = TEXT if named in _TEXTS else _ALIASES.get(named, named)
    fitting = [kind for kind in found if _fits(kind, wanted)]
    if found and not fitting:
        raise InvalidMessage(f"{called} is not what it says: {wanted[:100]} is claimed, but it looks like {found[0]}.")
    known = next((kind for kind in fitting if kind in allowed), None)
    if known is None:
        raise InvalidMessage(
            f"{called} is of a type that is not accepted{f', {fitting[0]}' if fitting else ''}. These are: "
            f"{', '.join(sorted(allowed))} (MOORLINE_FILE_TYPES)."
        )
    return known


def _found(data: bytes) -> list[str]:
    """The types that the bytes may be, the likeliest first. Some begin with letters, as texts do."""
    import puremagic  # noqa: PLC0415 - only if there are files

    try:
        matches = puremagic.magic_string(data)
    except (puremagic.PureError, ValueError):
        matches = []
    named = [match for match in matches if match.mime_type not in ("", TEXT)]
    # The others begin alike, but for less: every RIFF file may be a WebP, until one reads on.
    surest = max((match.confidence for match in named), default=0)
    found = [match.mime_type for match in named if match.confidence == surest]
    text = _text(data)
    if text is not None and not _MARKUP.match(text.lstrip()):
        found.append(TEXT)
    elif text is not None:
        found = [kind for kind in found if _is_markup(kind)] or ["text/html"]
    return list(dict.fromkeys(_ALIASES.get(kind, kind) for kind in found))


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text if len(data.translate(None, _CONTROL)) == len(data) else None


def _is_markup(kind: str) -> bool:
    return kind.endswith(("html", "xml"))


def _fits(kind: str, wanted: str) -> bool:
    if wanted in _UNSAID:
        return True
    if wanted == "image/*":
        return kind.startswith("image/") and not _is_markup(kind)
    return kind == wanted
