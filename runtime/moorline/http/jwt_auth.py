"""`jwt`: a token of the team's own issuer names the device. Keys come from a JWKS at a URL or in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet

from moorline.errors import ConfigurationError, InvalidDeviceID
from moorline.http.device_auth import Caller, agreed, bearer_token
from moorline.http.errors import IssuerUnavailable, RequestError, Unidentified

if TYPE_CHECKING:
    from starlette.requests import Request

    from moorline.http.settings import HttpSettings
    from moorline.runtime import Moorline

LEEWAY = 30
"""Seconds by which the issuer's clock may differ from this process's."""

KEYS_KEPT = 600.0
"""Seconds after which the keys at a URL are fetched again; sooner for a key that is not among them."""

FETCH_SECONDS = 5.0
"""Seconds that the issuer has to send its keys."""

_NO_KEY = "The token names no key of the issuer; send one that the issuer signed."


class Keys(Protocol):
    """The issuer's public keys."""

    async def named(self, key_id: str) -> PyJWK:
        """Raises `IssuerUnavailable` if they cannot be had, and `Unidentified` if none has this ID."""
        ...


class Issued:
    """Checks tokens of the issuer in the settings."""

    def __init__(self, moorline: Moorline, settings: HttpSettings) -> None:
        self._moorline = moorline
        self._settings = settings
        needed = {
            "MOORLINE_JWT_JWKS": settings.jwt_jwks,
            "MOORLINE_JWT_ISSUER": settings.jwt_issuer,
            "MOORLINE_JWT_AUDIENCE": settings.jwt_audience,
        }
        missing = [name for name, value in needed.items() if value is None]
        if settings.jwt_jwks is None or missing:
            raise ConfigurationError(f"With MOORLINE_DEVICE_AUTH=jwt, {' and '.join(missing)} must be set.")
        self._keys = _keys(settings.jwt_jwks)

    async def caller(self, request: Request) -> Caller:
        """See `Auth`."""
        settings, token = self._settings, bearer_token(request)
        try:
            key = await self._keys.named(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=settings.jwt_algorithms,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                leeway=LEEWAY,
                options={
                    "require": ["exp", "iss", "aud", settings.jwt_claim],
                    "enforce_minimum_key_length": True,
                },
            )
        except RequestError:
            raise
        except Exception as error:  # whatever a strange token makes the library raise
            raise Unidentified(f"The token is not accepted ({type(error).__name__}); get a new one.") from error
        try:
            return Caller(device_id=agreed(claims[settings.jwt_claim], request, self._moorline.settings))
        except InvalidDeviceID as error:
            raise Unidentified(f"The claim {settings.jwt_claim} is not the ID of a device.") from error


class _AtURL:
    def __init__(self, url: str) -> None:
        self._client = PyJWKClient(url, lifespan=KEYS_KEPT, timeout=FETCH_SECONDS)

    async def named(self, key_id: str) -> PyJWK:
        try:
            return await asyncio.to_thread(self._client.get_signing_key, key_id)
        except (jwt.PyJWKClientConnectionError, jwt.PyJWKSetError, OSError, ValueError) as error:
            raise IssuerUnavailable("The keys of the issuer cannot be fetched at the moment; try again.") from error
        except jwt.PyJWKClientError as error:
            raise Unidentified(_NO_KEY) from error


class _InFile:
    def __init__(self, keys: PyJWKSet) -> None:
        self._keys = keys

    async def named(self, key_id: str) -> PyJWK:
        found = next((key for key in self._keys.keys if key.key_id == key_id and key_id), None)
        if found is None:
            raise Unidentified(_NO_KEY)
        return found


def _keys(jwks: str) -> Keys:
    if "://" in jwks:
        try:
            return _AtURL(jwks)
        except jwt.PyJWTError as error:
            raise ConfigurationError(f"MOORLINE_JWT_JWKS: {error}") from error
    try:
        return _InFile(PyJWKSet.from_json(Path(jwks).read_text(encoding="utf-8")))
    except (OSError, ValueError, jwt.PyJWTError) as error:
        raise ConfigurationError(f"MOORLINE_JWT_JWKS: {jwks} cannot be read as a JWKS ({error}).") from error
