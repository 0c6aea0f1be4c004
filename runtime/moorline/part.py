"""The parts of which `Moorline` is put together: its methods on one subject each, in a module of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorline.backend import Backend
    from moorline.manager import AgentProtocol, StartOver
    from moorline.router import Router
    from moorline.settings import Settings
    from moorline.texts import Texts
    from moorline.turn_queue import TurnQueue
    from moorline_agents.model import Model


class Part:
    """What a part needs of the whole, which has it."""

    settings: Settings
    _model: Model
    _summary: Model | Literal["off"] | None
    _router: Router
    _start_over: StartOver
    _texts: Texts

    if TYPE_CHECKING:

        @property
        def _backend(self) -> Backend: ...

        @property
        def _queue(self) -> TurnQueue: ...

        def _served(self) -> Sequence[AgentProtocol]: ...

        async def _device(self, device_id: str) -> str: ...
