"""Fetching a file from an address that somebody else wrote: over https, and from public addresses only.

A name is resolved once for each request; every address that it has is checked, and the connection goes to one that
was. Redirects are followed by hand, so that each is checked like the first address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from moorline.errors import FileUnavailable, InvalidMessage

if TYPE_CHECKING:
    from ssl import SSLContext

    from httpx2 import URL, AsyncClient, Response

REDIRECTS = 3
"""How often an address may lead to another."""

_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC_EITHER = (
    IPv6Network("64:ff9b:1::/48"),  # where in these an IPv4 address is, each network decides for itself
    IPv6Network("3fff::/20"),  # documentation
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
"""What `ipaddress` takes for public."""

_LOOKUPS = ThreadPoolExecutor(8, thread_name_prefix="moorline-lookup")
"""Where names are resolved. A name server that does not answer keeps a thread for longer than anybody waits: it must be
none of those that the rest of the process needs, such as for its connections to the database."""

_NOT_HTTPS = "A file is fetched from an address like https://host/photo.jpg only."
_NOT_PUBLIC = "A file is fetched from public addresses only, and this one is not."
_FAILED = "A file could not be fetched; try again, or send its bytes."
_WORTH_RETRYING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet; an IPv4 address inside an IPv6 address counts as it is."""
    ip = ip_address(address.partition("%")[0])
    inner = _inside(ip) if isinstance(ip, IPv6Address) else None
    if inner is not None:
        return is_public(str(inner))
    local = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_reserved or ip.is_unspecified
    site_local = isinstance(ip, IPv6Address) and (ip.is_site_local or ip.teredo is not None)
    other = ip.is_multicast or any(ip in network for network in _NOT_PUBLIC_EITHER)
    return ip.is_global and not (local or site_local or other)


def _inside(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


@cache
def _trusted() -> SSLContext:
    """The authorities that are usual, read once: it takes as long as many a file."""
    import httpx2  # noqa: PLC0415 - as below

    return httpx2.create_ssl_context(trust_env=False)


@dataclass
class Room:
    """What is left for the files of a message, whichever come first."""

    left: int
    """Bytes."""

    def take(self, size: int) -> None:
        """Raises `InvalidMessage` if there is not as much."""
        self.left -= size
        if self.left < 0:
            raise InvalidMessage(
                "The files of the message have more bytes than are allowed (MOORLINE_FILES_TOTAL_MAX)."
            )


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches files."""

    largest: int
    """Bytes of a file."""
    seconds: float
    """Seconds in all, redirects included."""
    may_reach: Callable[[str], bool] = is_public
    """Whether it may connect to an IP address."""
    tls: SSLContext | None = None
    """Whom it trusts; None: the authorities that are usual."""

    async def fetch(self, url: str, room: Room) -> bytes:
        """The bytes at the address, for which there has to be room. Raises `InvalidMessage` for one that is never
        fetched, and `FileUnavailable` if it may be there later."""
        import httpx2  # noqa: PLC0415 - half a second, only if something is fetched

        try:
            async with asyncio.timeout(self.seconds):
                return await self._fetch(httpx2.URL(url), room)
        except TimeoutError:
            raise FileUnavailable(f"A file could not be fetched within {self.seconds:g} s.") from None
        except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
            if isinstance(error, InvalidMessage):
                raise
            raise InvalidMessage(_NOT_HTTPS) from error
        except (httpx2.HTTPError, OSError) as error:
            raise FileUnavailable(_FAILED) from error

    async def _fetch(self, url: URL, room: Room) -> bytes:
        import httpx2  # noqa: PLC0415 - as above

        verify = self.tls or _trusted()
        # What the environment says of proxies would have them resolve the name again.
        async with httpx2.AsyncClient(verify=verify, trust_env=False, timeout=self.seconds) as client:
            for _ in range(1 + REDIRECTS):
                async with self._asked(client, url) as response:
                    if not response.has_redirect_location:
                        return await self._body(response, room)
                    url = url.join(response.headers["Location"])
        raise InvalidMessage(f"The address of a file leads on more than {REDIRECTS} times.")

    @asynccontextmanager
    async def _asked(self, client: AsyncClient, url: URL) -> AsyncIterator[Response]:
        """The answer of the server at an address that was checked."""
        if url.scheme != "https" or not url.host or url.userinfo:
            raise InvalidMessage(_NOT_HTTPS)
        name = url.raw_host.decode("ascii")  # as it is asked for: `socket` would write ß as ss
        pinned = url.copy_with(host=await self._address(name, url.port or 443), fragment=None)
        headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
        # The certificate has to be the name's.
        extensions = {"sni_hostname": name}
        async with client.stream("GET", pinned, headers=headers, extensions=extensions) as response:
            yield response

    async def _address(self, host: str, port: int) -> str:
        resolving = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, resolving)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(self.may_reach, addresses)):
            raise InvalidMessage(_NOT_PUBLIC)
        return addresses[0]

    async def _body(self, response: Response, room: Room) -> bytes:
        status = response.status_code
        if status != HTTPStatus.OK:
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _WORTH_RETRYING:
                raise FileUnavailable(_FAILED)
            raise InvalidMessage(f"There is no file at its address (HTTP {status}).")
        data = bytearray()
        async for piece in response.aiter_raw():
            room.take(len(piece))
            data += piece
            if len(data) > self.largest:
                raise InvalidMessage(
                    f"A file at an address has more than {self.largest:,} bytes, which are allowed (MOORLINE_FILE_MAX)."
                )
        return bytes(data)
