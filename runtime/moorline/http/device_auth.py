"""Who is asking: the device of a request, by the mode that was chosen (`MOORLINE_DEVICE_AUTH`)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from moorline.addresses import came_through_proxy
from moorline.context import TurnContext, device_of
from moorline.errors import InvalidDeviceID
from moorline.http.errors import Unidentified

if TYPE_CHECKING:
    from starlette.requests import Request

    from moorline.settings import Settings

HEADER = "X-Device-ID"

RENEWED = "X-Device-Token"
"""The header of an answer that brings a renewed token."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The device that asks."""

    device_id: str
    """As it is stored."""
    renewed_token: str | None = None
    """A token to use from now on."""


class Auth(Protocol):
    """A way to prove whose device a request comes from."""

    async def caller(self, request: Request) -> Caller:
        """Raises `Unidentified`, or `InvalidDeviceID` for an ID that cannot be a device's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Unproven:
    """`none`: the device is what the header says."""

    settings: Settings
    only_loopback: bool
    """Whether requests are refused that do not come from this machine."""

    async def caller(self, request: Request) -> Caller:
        if self.only_loopback and not _is_local(request):
            raise Unidentified(
                "A device ID alone is believed from this machine only. Set MOORLINE_DEVICE_AUTH to signed or jwt, and "
                "send a token."
            )
        named = set(request.headers.getlist(HEADER))
        if len(named) != 1:
            found = "names several devices" if named else "names no device"
            raise InvalidDeviceID(f"The request {found}; send one ID, in the header {HEADER}.")
        return Caller(device_id=device_named(named.pop(), self.settings))


def device_named(device_id: object, settings: Settings) -> str:
    """The device as it is stored. Raises `InvalidDeviceID`."""
    if not isinstance(device_id, str) or not device_id.isascii():
        raise InvalidDeviceID("A device ID in a header or a token is text of ASCII characters.")
    return device_of(TurnContext(device_id=device_id), settings)


def bearer_token(request: Request) -> str:
    """The token in the header `Authorization`. Raises `Unidentified`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unidentified("The request has no token; send one in the header Authorization, after the word Bearer.")
    return token.strip()


def agreed(device_id: object, request: Request, settings: Settings) -> str:
    """The device of a token, as it is stored. Raises `InvalidDeviceID`, and `Unidentified` if the request names another
    device beside it."""
    stored = device_named(device_id, settings)
    if not all(_is(named, stored, settings) for named in request.headers.getlist(HEADER)):
        raise Unidentified(f"The token belongs to another device than {HEADER} names; send the token alone.")
    return stored


def _is(named: str, stored: str, settings: Settings) -> bool:
    try:
        return device_named(named, settings) == stored
    except InvalidDeviceID:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback


def _is_local(request: Request) -> bool:
    """Whether the request comes from this machine and was meant for it: neither through a proxy, nor from a page of
    somebody who lets the name of their site point here."""
    if came_through_proxy(request.headers):
        return False
    return is_loopback(request.client.host if request.client else "") and is_loopback(request.url.hostname or "")
