"""Rate limits by device and by address. With a Redis all processes count together; without one, or while it does not
answer, each counts by itself."""

from __future__ import annotations

import time
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from moorline.cache.entries import Keys
from moorline.cache.server import NoAnswer, RedisServer
from moorline.errors import MoorlineError
from moorline.http.errors import TooManyRequests

if TYPE_CHECKING:
    from starlette.requests import Request

    from moorline.http.settings import HttpSettings
    from moorline.runtime import Moorline


PREFIX = "moorline:rate"
"""Begins the keys in Redis."""


class RateLimits:
    """How often a device or an address may ask. Every method raises `TooManyRequests`."""

    def __init__(self, settings: HttpSettings, moorline: Moorline) -> None:
        """Raises `ConfigurationError` if there is a Redis whose client is not installed."""
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None if moorline.settings.redis_url is None else _Shared(moorline, moorline.settings.redis_url)
        self._device = parse(settings.rate_device)
        self._address = parse(settings.rate_address)
        self._new_devices = parse(settings.rate_new_devices)

    async def device(self, device_id: str) -> None:
        """Counts a request of the device."""
        await self._hit(self._device, "device", device_id, "This device asks too often")

    async def address(self, request: Request) -> None:
        """Counts a request of the address."""
        await self._hit(self._address, "address", address_of(request), "Too many requests come from this address")

    async def new_device(self, request: Request) -> None:
        """Counts a device that is made for the address."""
        await self._hit(self._new_devices, "new", address_of(request), "This address asks for too many devices")

    async def close(self) -> None:
        """Closes the connections to Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def _hit(self, limit: RateLimitItem, kind: str, key: str, complaint: str) -> None:
        wait = await self._counted(limit, kind, key)
        if wait is not None:
            raise TooManyRequests(f"{complaint}; try again later.", wait)

    async def _counted(self, limit: RateLimitItem, kind: str, key: str) -> float | None:
        """See `_wait`."""
        if self._shared is not None:
            with suppress(NoAnswer):
                return await self._shared.wait(limit, kind, key)
        return await _wait(self._limiter, limit, kind, key)


class _Shared:
    """Counts in Redis, under keyed hashes of devices and addresses."""

    def __init__(self, moorline: Moorline, url: str) -> None:
        self._moorline = moorline
        self._server = RedisServer(url, instead="each process counts rate limits by itself until it does again")
        pool: Any = self._server.client.connection_pool
        storage = RedisStorage("async+redis://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool)
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def wait(self, limit: RateLimitItem, kind: str, key: str) -> float | None:
        """See `_wait`. Raises `NoAnswer` if this process has to count."""
        try:
            keys = Keys(await self._moorline.revocations.key())
        except MoorlineError as error:  # the database's
            raise NoAnswer from error
        hashed = keys.hashed(key, b"rate")
        return await self._server.ask(lambda: _wait(self._limiter, limit, kind, hashed))

    async def close(self) -> None:
        await self._server.close()


async def _wait(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItem, kind: str, key: str) -> float | None:
    """Counts a request; the seconds until there may be another one if there were too many, else None."""
    if await limiter.hit(limit, kind, key):
        return None
    stats = await limiter.get_window_stats(limit, kind, key)
    return max(stats.reset_time - time.time(), 0.0)


def address_of(request: Request) -> str:
    """What a client cannot change about where it asks from: an IPv4 address, or the first half of an IPv6 address."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:  # a Unix socket, for example
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
