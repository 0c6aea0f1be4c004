"""Link codes: eight letters and digits that are easily read out, of which people write 0 for O and 1 for I or L."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: five bits a symbol."""

_LENGTH = 8

_READ = str.maketrans("OIL", "011", "- ")


def new_code() -> str:
    """A random code of 40 bits, in two groups: `7HKM-2R9Q`."""
    symbols = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return f"{symbols[:4]}-{symbols[4:]}"


def read_code(text: object) -> str | None:
    """The code that somebody has typed, without its hyphen; None if it cannot be one."""
    if not isinstance(text, str) or len(text) > 4 * _LENGTH:
        return None
    symbols = text.strip().upper().translate(_READ)
    return symbols if len(symbols) == _LENGTH and set(symbols) <= set(_ALPHABET) else None
