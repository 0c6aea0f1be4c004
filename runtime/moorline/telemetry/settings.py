"""The settings of telemetry, read from the environment like `moorline.Settings`."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from moorline.settings import EnvironmentSettings


def _words(value: object) -> object:
    """The environment gives words separated by commas."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _network(address: str) -> str:
    try:
        ip_network(address)
    except ValueError:
        raise ValueError("must be IP addresses or networks such as 10.0.0.0/8") from None
    return address


class TelemetrySettings(EnvironmentSettings):
    """What `moorline serve` shows to whom."""

    metrics_clients: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_words)
    ] = ("127.0.0.0/8", "::1")
    """The addresses and networks, separated by commas, that may read /metrics, without a proxy in between."""

    trace_content: bool = False
    """Whether spans hold what people, models and tools say."""
