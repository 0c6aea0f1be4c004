"""The ways to say who is asking, by their names in `MOORLINE_DEVICE_AUTH`."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from moorline.http.device_auth import Auth, Unproven
from moorline.http.jwt_auth import Issued
from moorline.http.signed import Signed

if TYPE_CHECKING:
    from moorline.http.settings import DeviceAuth, HttpSettings
    from moorline.runtime import Moorline


def auth_for(mode: DeviceAuth | None, moorline: Moorline, settings: HttpSettings) -> Auth:
    """The mode at work. Without a mode, device IDs are believed from this machine only.

    Raises `ConfigurationError` if the settings are not enough for it.
    """
    match mode:
        case None | "none":
            return Unproven(settings=moorline.settings, only_loopback=mode is None)
        case "signed":
            return Signed(moorline, settings)
        case "jwt":
            return Issued(moorline, settings)
        case _:
            assert_never(mode)
