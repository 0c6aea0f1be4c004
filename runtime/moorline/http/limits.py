"""Rate limits by device and by address. They are counted in this process: with several workers each has its own."""

from __future__ import annotations

import time
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from moorline.http.errors import TooManyRequests

if TYPE_CHECKING:
    from starlette.requests import Request

    from moorline.http.settings import HttpSettings


class RateLimits:
    """How often a device or an address may ask. Every method raises `TooManyRequests`."""

    def __init__(self, settings: HttpSettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
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

    async def _hit(self, limit: RateLimitItem, kind: str, key: str, complaint: str) -> None:
        if not await self._limiter.hit(limit, kind, key):
            stats = await self._limiter.get_window_stats(limit, kind, key)
            wait = max(stats.reset_time - time.time(), 0.0)
            raise TooManyRequests(f"{complaint}; try again later.", wait)


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
