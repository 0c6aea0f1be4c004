"""The lock of a device by the names that session services give it, for backends and operators."""

from __future__ import annotations

from datetime import datetime

from moorline.errors import only_ours
from moorline.part import Part


class Locks(Part):
    """Which agent answers a device, for an open `Moorline`. From the moment it expires a lock reads as none.

    A device is named as in a turn's context, and found as turns find it. During a turn of the device, what anybody else
    does to the lock stays, and what the turn wanted is dropped; a tool of the turn changes it with the commit.
    """

    async def get_session_lock(self, device_id: str) -> str | None:
        """The agent that holds the device's live lock, or None."""
        with only_ours():
            return await self._backend.saver.get_session_lock(await self._device(device_id))

    async def set_session_lock(
        self, device_id: str, agent_key: str, *, ttl: int | None = None, until: datetime | None = None
    ) -> bool:
        """Gives the agent the device's lock until `ttl` seconds after the last activity, or until a moment, whatever
        happens. Without either, the person's TTL counts (`set_ttl`), then the device's last one, then
        `DEFAULT_SESSION_TTL`. Returns True, or raises. A lock of an agent that the app does not have leaves the next
        message to the router."""
        with only_ours():
            device_id = await self._device(device_id)
            return await self._backend.saver.set_session_lock(device_id, agent_key, ttl=ttl, until=until)

    async def clear_session_lock(self, device_id: str) -> bool:
        """Drops the lock and nothing else. Returns whether there was a live one."""
        with only_ours():
            return await self._backend.saver.clear_session_lock(await self._device(device_id))

    async def cleanup_expired_sessions(self) -> int:
        """Drops the locks that have expired, on all devices, and returns how many."""
        with only_ours():
            return await self._backend.saver.cleanup_expired_sessions()
