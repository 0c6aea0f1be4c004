"""The checkpointer on asyncpg, session locks and turns."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline_checkpoint.devices import (
        require_device_id as require_device_id,
    )
    from moorline_checkpoint.devices import (
        validate_device_id as validate_device_id,
    )
    from moorline_checkpoint.errors import (
        ErasureFailed as ErasureFailed,
    )
    from moorline_checkpoint.errors import (
        InvalidDeviceID as InvalidDeviceID,
    )
    from moorline_checkpoint.errors import (
        SessionBusy as SessionBusy,
    )
    from moorline_checkpoint.errors import (
        StaleTurn as StaleTurn,
    )
    from moorline_checkpoint.fact_store import FactStore as FactStore
    from moorline_checkpoint.saver import DeviceCheckpointer as DeviceCheckpointer
    from moorline_checkpoint.serializer import StrictSerializer as StrictSerializer
    from moorline_checkpoint.sessions import Session as Session
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "moorline_checkpoint.devices": ("require_device_id", "validate_device_id"),
            "moorline_checkpoint.errors": ("ErasureFailed", "InvalidDeviceID", "SessionBusy", "StaleTurn"),
            "moorline_checkpoint.fact_store": ("FactStore",),
            "moorline_checkpoint.saver": ("DeviceCheckpointer",),
            "moorline_checkpoint.serializer": ("StrictSerializer",),
            "moorline_checkpoint.sessions": ("Session",),
        },
    )
