"""Who uses an embedded server: it is started for the first user and stopped after the last.

A user is a process. It holds a shared lock on a file until it ends, and the kernel gives the lock back
however it ends, so that nothing has to be counted. Two more locks of that kind tell of processes that outlive
their starter: the server's own, and its keeper's (see `keeper`).
"""

import asyncio
import atexit
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moorline.embedded import keeper
from moorline.embedded.cluster import START_TIMEOUT, Cluster
from moorline.errors import ConfigurationError, StoreUnavailable

POLL = 0.05
"""Seconds between two looks at a server that another process started."""

_used: dict[Path, int] = {}
"""The open lock file of each folder that this process uses."""
_starting = threading.Lock()
os.register_at_fork(after_in_child=_used.clear)  # what a fork inherits is not its own to leave


async def embedded_dsn(data: Path) -> str:
    """How to connect to the PostgreSQL in the data folder, made and started as needed.

    From now on this process is one of its users, until it ends; the server stops with the last of them. After
    a crash of the server, calling again starts it again. Raises `ConfigurationError` where it cannot be had.
    """
    return await asyncio.to_thread(_dsn, data)


def _dsn(data: Path) -> str:
    if sys.platform == "win32":
        raise ConfigurationError("The embedded PostgreSQL needs Linux, macOS or WSL; set DATABASE_URL.")
    try:
        data = data.resolve()
        locks = data / "postgres.locks"
        with _starting:
            data.mkdir(parents=True, exist_ok=True)
            locks.mkdir(mode=0o700, exist_ok=True)
            cluster = Cluster.at(data / "postgres")
            if data not in _used:
                _used[data] = _lock(locks / "users", fcntl.LOCK_SH)
            with _locked(locks / "starting", fcntl.LOCK_EX):
                dsn = _running(cluster, locks)
                _keep(cluster, locks)
            return dsn
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {data} cannot be used ({error.strerror}: {error.filename}). Make it writable, "
            "or set MOORLINE_DATA to another folder or DATABASE_URL to a server of your own."
        ) from error


def _running(cluster: Cluster, locks: Path) -> str:
    """Starts the server unless it runs. The caller is the only one to try."""
    cluster.create()
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        dsn = cluster.dsn()
        if dsn is not None:
            return dsn
        # Held by every process of a server: one that is coming up, or what is left of one that was killed.
        with suppress(BlockingIOError), _locked(locks / "server", fcntl.LOCK_EX | fcntl.LOCK_NB) as token:
            cluster.start(token=token)
            continue
        time.sleep(POLL)
    raise StoreUnavailable(f"The embedded PostgreSQL in {cluster.folder} is busy for {START_TIMEOUT} s; try again.")


def _keep(cluster: Cluster, locks: Path) -> None:
    """Sees that there is a keeper. Its lock too lives as long as the process that inherited it."""
    with suppress(BlockingIOError), _locked(locks / "keeper", fcntl.LOCK_EX | fcntl.LOCK_NB) as token:
        account = f"{cluster.account.uid}:{cluster.account.gid}" if cluster.account else ""
        command = (str(locks / "users"), str(locks / "server"), account, *cluster.stop_command())
        subprocess.run(  # noqa: S603
            [sys.executable, "-I", "-S", keeper.__file__, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            pass_fds=(token,),
            start_new_session=True,
        )


@atexit.register
def _leave() -> None:
    """A last user that ends by itself stops the server itself, so that nothing of it outlives the program."""
    for data, users in _used.items():
        with suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not keeper.is_free(data / "postgres.locks" / "server"):
                Cluster.at(data / "postgres").stop()


def _lock(path: Path, operation: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, operation)
    except BaseException:
        os.close(file)
        raise
    return file


@contextmanager
def _locked(path: Path, operation: int) -> Iterator[int]:
    """Closing, not unlocking: a process that inherited the file keeps the lock."""
    file = _lock(path, operation)
    try:
        yield file
    finally:
        os.close(file)
