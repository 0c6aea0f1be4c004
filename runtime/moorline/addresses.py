"""Where requests come from: networks in settings, and the headers by which proxies say that they stand in between."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""Headers that proxies add, in lower case."""


def came_through_proxy(headers: Iterable[str]) -> bool:
    """Whether one of the headers, named in lower case, is a proxy's. The client may then be anywhere, even if the
    connection comes from this machine."""
    return not FORWARDED.isdisjoint(headers)


def listed(value: object) -> object:
    """The environment gives words separated by commas; in which case they are matters."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _network(address: str) -> str:
    try:
        ip_network(address)
    except ValueError:
        raise ValueError("must be IP addresses or networks such as 10.0.0.0/8") from None
    return address


Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(listed)]
"""A setting that holds IP addresses and networks."""
