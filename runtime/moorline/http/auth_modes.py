"""The ways to say who is asking, by their names in `MOORLINE_DEVICE_AUTH`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moorline.errors import ConfigurationError
from moorline.http.device_auth import Auth, Unproven

if TYPE_CHECKING:
    from moorline.http.settings import DeviceAuth, HttpSettings
    from moorline.runtime import Moorline


def auth_for(mode: DeviceAuth | None, moorline: Moorline, settings: HttpSettings) -> Auth:  # noqa: ARG001
    """The mode at work. Without a mode, device IDs are believed from this machine only.

    Raises `ConfigurationError` if the settings are not enough for it.
    """
    match mode:
        case None | "none":
            return Unproven(settings=moorline.settings, only_loopback=mode is None)
        case _:
            raise ConfigurationError(f"MOORLINE_DEVICE_AUTH={mode} is not there yet.")
