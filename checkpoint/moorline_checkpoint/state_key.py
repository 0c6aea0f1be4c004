"""Device IDs as keys of `conversation_states`, whose column is text, or uuid if a backend had the table before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moorline_checkpoint.devices import is_uuid


@dataclass(frozen=True)
class StateKey:
    """A device ID as the key of `conversation_states`.

    If the column is uuid and the ID is not one, it becomes NULL: such a device has no row there.
    """

    device_id: str

    def value(self, uuid_states: bool) -> str | None:
        """What the column is compared with."""
        return None if uuid_states and not is_uuid(self.device_id) else self.device_id


@dataclass(frozen=True)
class StateKeys:
    """Several of them, for an array of the column's type."""

    device_ids: tuple[str, ...]

    def value(self, uuid_states: bool) -> list[str | None]:
        """What the column is compared with."""
        return [StateKey(device_id).value(uuid_states) for device_id in self.device_ids]


def keyed(args: Iterable[object], *, uuid_states: bool) -> list[object]:
    """The arguments of a statement, with keys as the column takes them."""
    return [arg.value(uuid_states) if isinstance(arg, StateKey | StateKeys) else arg for arg in args]
