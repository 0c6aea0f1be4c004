"""What a `Moorline` gives back of the files that came with messages."""

from __future__ import annotations

import re

from moorline.errors import only_ours
from moorline.part import Part
from moorline_checkpoint.files import StoredFile

_HASH = re.compile("[0-9a-f]{64}")


class KeptFiles(Part):
    """The part of `Moorline` that concerns files."""

    async def file(self, device_id: str, hash: str) -> StoredFile | None:
        """The file of the device's conversation with this hash, which a transcript names; None if it has none, or no
        longer. Send it to people as a download: it is what somebody else has sent."""
        with only_ours():
            device_id = await self._device(device_id)
            return await self._backend.files.find(device_id, hash) if _HASH.fullmatch(hash) else None
