"""`signed`: a device has a random ID and a token of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from moorline.http.device_auth import Caller, agreed, bearer_token
from moorline.http.errors import Unidentified
from moorline.http.tokens import Forged, KeyRing, Token
from moorline_checkpoint.revocations import LIFETIME_DAYS

if TYPE_CHECKING:
    from starlette.requests import Request

    from moorline.http.settings import HttpSettings
    from moorline.runtime import Moorline

LIFETIME = timedelta(days=LIFETIME_DAYS)

RENEWED_AFTER = timedelta(days=1)
"""The age from which on the use of a token brings a new one."""

TOLERANCE = timedelta(minutes=1)
"""How far in the future a token may have been issued: another server of the database may have another clock."""


@dataclass(frozen=True, kw_only=True)
class NewDevice:
    """A device that was made just now."""

    device_id: str
    token: str
    expires_at: datetime


class Signed:
    """Issues tokens and checks them. Time is the database's."""

    def __init__(self, moorline: Moorline, settings: HttpSettings) -> None:
        self._moorline = moorline
        keys = [key.get_secret_value().encode() for key in settings.token_keys]
        self._ring = KeyRing(keys) if keys else None

    async def new_device(self) -> NewDevice:
        """A device with an ID that nobody can guess, and its first token."""
        device_id = str(uuid4())
        accepted = await self._moorline.revocations.accepted(device_id)
        issued_at = int(accepted.now)
        token = Token(device_id=device_id, generation=accepted.generation, issued_at=issued_at)
        return NewDevice(
            device_id=device_id,
            token=(await self._keys()).sign(token),
            expires_at=datetime.fromtimestamp(issued_at, UTC) + LIFETIME,
        )

    async def caller(self, request: Request) -> Caller:
        """See `Auth`. A token that is in use for long is renewed in time."""
        keys = await self._keys()
        try:
            token = keys.read(bearer_token(request))
        except Forged:
            raise Unidentified("The token is not one of ours; ask for a new device with POST /v1/devices.") from None
        accepted = await self._moorline.revocations.accepted(token.device_id)
        age = timedelta(seconds=accepted.now - token.issued_at)
        if age < -TOLERANCE:
            raise Unidentified("The token was issued in the future; ask for a new device with POST /v1/devices.")
        if age > LIFETIME:
            raise Unidentified("The token has expired; ask for a new device with POST /v1/devices.")
        if token.generation < accepted.generation:
            raise Unidentified("The token was revoked; ask for a new device with POST /v1/devices.")
        device_id = agreed(token.device_id, request, self._moorline.settings)
        if age <= RENEWED_AFTER:
            return Caller(device_id=device_id)
        # Not of the newest generation: a revocation since then holds for the new token, too.
        renewed = Token(device_id=token.device_id, generation=token.generation, issued_at=int(accepted.now))
        return Caller(device_id=device_id, renewed_token=keys.sign(renewed))

    async def _keys(self) -> KeyRing:
        if self._ring is None:
            self._ring = KeyRing([await self._moorline.revocations.key()])
        return self._ring
