"""Reading sessions for gateways and dashboards: from Redis if it has an answer, else from PostgreSQL."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from moorline.backend import Backend, open_backend
from moorline.cache.entries import READ, session_in
from moorline.cache.server import NoAnswer
from moorline.context import stored_device_id
from moorline.errors import UsageError, only_ours
from moorline.settings import Settings, load_settings

if TYPE_CHECKING:
    from redis.commands.core import AsyncScript

    from moorline.cache.writer import SessionWriter
    from moorline_checkpoint.sessions import Session


BELIEVED = 300
"""Seconds for which an entry is believed: the most that a reader is behind if the process that should have written a
newer one has died, or cannot reach Redis."""


class SessionReader:
    """Which session a device has, for those who only read it.

        async with SessionReader() as reader:
            session = await reader.session(device_id)

    What Redis says was committed, and is usually a few milliseconds behind; how far it may be behind if something
    fails is in docs/redis.md. Without `MOORLINE_REDIS_URL`, every answer comes from PostgreSQL.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or load_settings()
        self._backend: Backend | None = None
        self._read: AsyncScript | None = None

    async def __aenter__(self) -> Self:
        """Raises `ConfigurationError`, `SchemaMismatch` or `StoreUnavailable` if PostgreSQL could not be asked. Redis
        may be gone."""
        self._backend = await open_backend(self._settings)
        if self._backend.writer is not None:
            self._read = self._backend.writer.server.client.register_script(READ)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    async def session(self, device_id: str) -> Session | None:
        """The device's session; None if no agent holds it. It waits for Redis no longer than 50 ms.

        Raises `InvalidDeviceID`, and `StoreUnavailable` if neither Redis nor PostgreSQL has an answer.
        """
        if self._backend is None:
            raise UsageError("This SessionReader is not open. Use it inside `async with SessionReader() as reader:`.")
        with only_ours():
            device_id = await self._backend.key.spelled(stored_device_id(device_id, self._settings))
            writer = self._backend.writer
            found = None if writer is None else await self._written(writer, device_id)
            if found is None:
                found = await self._backend.saver.get_session(device_id)
                if found is not None and writer is not None:  # so that the next one finds it there
                    writer.lock_changed(device_id)
            return found

    async def _written(self, writer: SessionWriter, device_id: str) -> Session | None:
        """What Redis says of the device; None if PostgreSQL has to be asked."""
        keys, read = await writer.keys(), self._read
        assert read is not None  # noqa: S101 - there is a writer
        try:
            stored = await writer.server.ask(lambda: read(keys=[keys.entry(device_id), keys.epoch], args=[BELIEVED]))
            return None if stored is None else session_in(device_id, stored)
        except NoAnswer:
            return None
        except ValueError:
            writer.server.rubbish("an entry that cannot be read")
            return None
