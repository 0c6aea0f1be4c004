"""Writing sessions to Redis, after the database has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from moorline.cache.entries import TELL, Keys, arguments
from moorline.cache.server import PAUSE, RedisServer
from moorline.errors import MoorlineError
from moorline_checkpoint.lock_versions import lock_versions

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database
    from moorline_checkpoint.revocations import Revocations

MOST = 10_000
"""Devices that may wait to be written. If there are more, readers ask PostgreSQL for all devices for a while."""

BATCH = 200
"""Devices that are written together."""

DELAY = 0.005
"""Seconds for which changes are gathered."""

WITHIN = 2.0
"""Seconds that a batch may take."""

PATIENCE = 1.0
"""Seconds that closing waits for what is left to be written."""


class SessionWriter:
    """Writes the session of each device whose lock may have changed: what the device's row says then, with the fence
    and the moment as its version. Nobody waits for it.

    What cannot be written is kept and written later, by this process. Until then Redis may hold what was before.
    """

    def __init__(self, server: RedisServer, database: Database, revocations: Revocations) -> None:
        """To be called on the loop on which it writes."""
        self._server = server
        self._database = database
        self._revocations = revocations
        self._tell = server.client.register_script(TELL)
        self._changed: dict[str, None] = {}
        self._missed = self._closing = False
        self._loop = asyncio.get_running_loop()
        self._wake, self._woken = asyncio.Event(), False
        self._task = asyncio.create_task(self._run())

    @property
    def server(self) -> RedisServer:
        """Where it writes."""
        return self._server

    def lock_changed(self, device_id: str) -> None:
        """Takes note that the device's lock may have changed; from any thread."""
        self._keep([device_id])
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._wake.set)

    async def keys(self) -> Keys:
        """The keys of the database's devices. Raises `StoreUnavailable` while nobody knows them yet."""
        return Keys(await self._revocations.key())

    async def close(self) -> None:
        """Writes what is left, if Redis and the database answer, and closes the connections to it."""
        self._closing = True
        while not self._task.done():  # a client may take a cancellation for an error of its own
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)
        with suppress(Exception):
            async with asyncio.timeout(PATIENCE):
                while self._changed:
                    await self._write()
        await self._server.close()

    async def _run(self) -> None:
        while not self._closing:
            await self._wake.wait()
            await asyncio.sleep(DELAY)
            self._wake.clear()
            self._woken = False
            while (self._changed or self._missed) and not self._closing:
                try:
                    await self._write()
                except MoorlineError:  # the database's, about which others complain
                    await asyncio.sleep(PAUSE)
                except Exception as error:
                    self._server.failed(error)
                    await asyncio.sleep(PAUSE)
                else:
                    self._server.works()

    async def _write(self) -> None:
        batch = list(self._changed)[:BATCH]
        for device_id in batch:
            self._changed.pop(device_id, None)
        try:
            async with asyncio.timeout(WITHIN):
                await self._send(batch)
        except BaseException:
            self._keep(batch)
            raise

    async def _send(self, batch: list[str]) -> None:
        client = self._server.client
        if self._server.failing:
            await client.ping()  # before the database is asked for what cannot be written
        keys = await self.keys()
        if self._missed:
            await client.set(keys.epoch, token_hex(8))
            self._missed = False
        if not batch:
            return
        try:
            versions = await lock_versions(self._database, batch)
            conversations = {each.leads_to for each in versions if each.leads_to is not None} - set(batch)
            if conversations:  # whoever changed a lock may have named an address that leads there
                versions += await lock_versions(self._database, sorted(conversations))
        except MoorlineError:
            await client.delete(*map(keys.entry, batch))
            raise
        epoch = token_hex(8)
        pipeline: Any = client.pipeline(transaction=False)
        async with pipeline:
            for version in versions:
                names = [keys.entry(version.device_id), keys.floor(version.device_id), keys.epoch]
                await self._tell(keys=names, args=arguments(version, epoch=epoch), client=pipeline)
            await pipeline.execute()

    def _keep(self, device_ids: Iterable[str]) -> None:
        self._changed.update(dict.fromkeys(device_ids))
        if len(self._changed) > MOST:
            self._changed.clear()
            self._missed = True
