"""The parts of which `Moorline` is put together: its methods on one subject each, in a module of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline.backend import Backend
    from moorline.settings import Settings
    from moorline.turn_queue import TurnQueue


class Part:
    """What a part needs of the whole, which has it."""

    settings: Settings

    if TYPE_CHECKING:

        @property
        def _backend(self) -> Backend: ...

        @property
        def _queue(self) -> TurnQueue: ...

        async def _device(self, device_id: str) -> str: ...
