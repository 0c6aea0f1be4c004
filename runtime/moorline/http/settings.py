"""The settings of the HTTP face, read from the environment like `moorline.Settings`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import limits
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints
from pydantic_settings import NoDecode

from moorline.addresses import Networks, listed
from moorline.settings import EnvironmentSettings

DeviceAuth = Literal["none", "signed", "jwt"]
"""How a request proves whose device it comes from: not at all, by a token of ours, or by one of the team's issuer."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"]
"""Signatures that can be checked without being able to make them."""

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


def _rate(rate: str) -> str:
    try:
        limits.parse(rate)
    except ValueError:
        raise ValueError("must be a rate such as 60/minute or 1000/2 hours") from None
    return rate


def _origin(origin: str) -> str:
    if not re.fullmatch(r"https?://[^\s/*]+", origin):
        raise ValueError("must be origins such as https://www.example.com")
    return origin


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Rate = Annotated[str, AfterValidator(_rate)]
_Listed = (NoDecode, BeforeValidator(listed))


class HttpSettings(EnvironmentSettings):
    """The settings of one router or server."""

    device_auth: DeviceAuth | None = None
    """How a request proves whose device it comes from. Unset: `none`, for requests from this machine only."""

    token_keys: Annotated[tuple[Annotated[SecretStr, Field(min_length=32)], ...], *_Listed] = ()
    """With `signed`: the keys of tokens, separated by commas. The first one signs, all of them are accepted. Unset: a
    key that is kept in the database."""

    jwt_jwks: _Text | None = None
    """With `jwt`: the issuer's public keys, a JWKS at a URL or in a file."""

    jwt_issuer: _Text | None = None
    """With `jwt`: what `iss` must be."""

    jwt_audience: _Text | None = None
    """With `jwt`: what `aud` must be or contain."""

    jwt_algorithms: Annotated[tuple[Algorithm, ...], *_Listed, Field(min_length=1)] = ("RS256", "ES256", "EdDSA")
    """With `jwt`: the signatures that are accepted, separated by commas; asymmetric ones only."""

    jwt_claim: _Text = "sub"
    """With `jwt`: the claim that holds the device's ID."""

    rate_device: _Rate = "60/minute"
    """How often one device may ask: all processes together if there is a Redis, otherwise each of them."""

    rate_address: _Rate = "600/minute"
    """How often one address may ask, counted like a device: an IPv4 address, or a /64 network of IPv6."""

    rate_new_devices: _Rate = "30/hour"
    """With `signed`: how many devices one address may ask for, counted like requests."""

    body_max: int | None = Field(default=None, ge=1_024)
    """The most bytes of a request's body. Unset: 1 MiB, and for a message as much more as its files take in base64."""

    body_timeout: float = Field(default=10, gt=0, le=600)
    """Seconds in which a request's body must be there, and one more for each 50 kB that have come."""

    proxies: Networks = ()
    """The addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` and `X-Forwarded-Proto`
    `moorline serve` believes."""

    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], *_Listed] = ()
    """The origins, separated by commas, whose pages may call `moorline serve` from a browser. Unset: only its own."""
