"""Device tokens: signed with HMAC-SHA256 over the device's ID, its generation and the time of issue."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = "m1"
"""Begins every token; another form would begin otherwise."""

LONGEST = 512
"""Characters; a device ID has at most 128."""


class Forged(Exception):
    """The text is no token that one of the keys has signed."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """What a token says."""

    device_id: str
    generation: int
    issued_at: int
    """Seconds since the epoch."""


class KeyRing:
    """Signs tokens with its first key, and accepts those of all its keys: a new key goes in front, and the old one
    leaves when its last tokens have been renewed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def sign(self, token: Token) -> str:
        """The token as text, which is safe in a header and in a URL."""
        said = f"{token.generation} {token.issued_at} {token.device_id}".encode()
        signed = f"{VERSION}.{_text(said)}"
        return f"{signed}.{_signature(self._keys[0], signed)}"

    def read(self, text: str) -> Token:
        """Raises `Forged` unless every character is as it was signed. The comparison takes the same time wherever they
        differ."""
        signed, _, signature = text.rpartition(".")
        version, _, said = signed.partition(".")
        if not text.isascii() or len(text) > LONGEST or version != VERSION:
            raise Forged
        fits = [hmac.compare_digest(_signature(key, signed), signature) for key in self._keys]
        if not any(fits):
            raise Forged
        generation, issued_at, device_id = urlsafe_b64decode(said + "=" * (-len(said) % 4)).decode().split(" ", 2)
        return Token(device_id=device_id, generation=int(generation), issued_at=int(issued_at))


def _signature(key: bytes, signed: str) -> str:
    # Compared as text: several texts may stand for the same bytes.
    return _text(hmac.digest(key, f"moorline device token {signed}".encode(), "sha256"))


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
