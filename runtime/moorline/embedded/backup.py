"""A backup of an embedded server: a copy of its data folder, made while it runs."""

import asyncio
import shutil
from pathlib import Path

from moorline.embedded.cluster import Cluster
from moorline.embedded.sharing import embedded_dsn
from moorline.errors import ConfigurationError

DEVICE = "device"
"""The file with the chat's device ID."""


async def back_up(data: Path, target: Path) -> None:
    """Makes a new data folder with everything that was committed when the copy ends. The server, which is started if it
    is not running, answers all the while.

    Raises `ConfigurationError` if the target is there and not empty, or cannot be written; at most an empty folder is
    left then.
    """
    dsn = await embedded_dsn(data)
    await asyncio.to_thread(_back_up, data, target, dsn)


def _back_up(data: Path, target: Path, dsn: str) -> None:
    try:
        data, target = data.resolve(), target.absolute()
        if target.exists() and any(target.iterdir()):
            raise ConfigurationError(f"{target} is not empty; name a new folder.")
        target.mkdir(parents=True, exist_ok=True)
        try:
            if (data / DEVICE).exists():
                shutil.copy2(data / DEVICE, target / DEVICE)
            Cluster.at(data / "postgres").copy(target / "postgres", dsn)
        except BaseException:
            (target / DEVICE).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be used ({error.strerror or error}); name another folder."
        ) from error
