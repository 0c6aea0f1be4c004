"""The Redis server: its client, and whether it answers in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from moorline.errors import ConfigurationError

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE = 0.05
"""The most seconds that somebody who can go on without an answer waits for one."""

PAUSE = 1.0
"""Seconds for which a server that did not answer in time is left alone."""

SOCKET_TIMEOUT = 2.0
"""Seconds after which a connection that does not answer is closed."""

CONNECTIONS = 16
"""The most connections of one client."""

logger = logging.getLogger("moorline.cache")

T = TypeVar("T")


class NoAnswer(Exception):
    """Redis did not answer in time, or is being left alone."""


class RedisServer:
    """The server that a process asks for one purpose. It is reached when it is first needed.

    That it does not answer is logged once, with what happens in its place, and so is that it answers again.
    """

    def __init__(self, url: str, *, instead: str) -> None:
        """Raises `ConfigurationError` if the client is not installed or cannot read the URL. `instead` says what
        happens without an answer."""
        self.client = _client(url)
        self._instead = instead
        self._asked: set[asyncio.Task[Any]] = set()
        self._rests_until = 0.0
        self._logged: set[str] = set()
        self.failing = False
        """Whether it did not answer when it was last asked."""

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Its answer. Raises `NoAnswer` after `PATIENCE` at the latest, and at once while the server is left alone; the
        question is not taken back then, so that a connection which takes long to open is there the next time."""
        if time.monotonic() < self._rests_until:
            raise NoAnswer
        task = asyncio.create_task(question())
        self._asked.add(task)
        task.add_done_callback(self._answered)
        await asyncio.wait([task], timeout=PATIENCE)
        if not task.done():
            self.failed(TimeoutError())
            raise NoAnswer
        if (error := task.exception()) is not None:
            if "WRONGTYPE" in str(error):
                self.rubbish("a value of another type")
            else:
                self.failed(error)
            raise NoAnswer from error
        self.works()
        return task.result()

    def failed(self, error: BaseException) -> None:
        """Notes that it did not answer."""
        self._rests_until = time.monotonic() + PAUSE
        if not self.failing:
            self.failing = True
            logger.warning("Redis %s: %s. Nothing else depends on it.", _told(error), self._instead)

    def works(self) -> None:
        """Notes that it answered."""
        if self.failing:
            self.failing, self._rests_until = False, 0.0
            logger.info("Redis answers again.")

    def rubbish(self, what: str) -> None:
        """Logs once that it holds something which we have not written."""
        if what not in self._logged:
            self._logged.add(what)
            logger.warning(
                "Redis holds %s under a key that only Moorline should write: PostgreSQL is asked. This is logged once.",
                what,
            )

    async def close(self) -> None:
        """Closes the connections."""
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)
        await self.client.aclose()

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # was told, or comes too late to be


def _client(url: str) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 - only if it is used
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "redis":
            raise
        raise ConfigurationError(
            "MOORLINE_REDIS_URL is set, but the client for Redis is not installed; run `pip install 'moorline[redis]'`."
        ) from None
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_TIMEOUT,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=SOCKET_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        pool.make_connection()  # it reads what else the URL says
    except (ValueError, TypeError):  # whose text may quote the password
        raise ConfigurationError(
            "MOORLINE_REDIS_URL cannot be read; it must look like redis://:password@host:6379/0."
        ) from None
    return Redis.from_pool(pool)


def _told(error: BaseException) -> str:
    """What is wrong, without the error's text, which may quote what the server has sent."""
    match type(error).__name__:
        case "AuthenticationError" | "AuthenticationWrongNumberOfArgsError":
            return "refuses the user or the password in MOORLINE_REDIS_URL"
        case "NoPermissionError":
            return "refuses commands to the user in MOORLINE_REDIS_URL (see the rights in docs/redis.md)"
        case "TimeoutError":
            return "does not answer in time"
        case "ConnectionError":
            return "cannot be reached"
        case name:
            return f"does not do what it is told ({name})"
