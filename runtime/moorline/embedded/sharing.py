"""Sharing an embedded server: it is started for its first user and stopped after its last.

A user is a process. It holds a shared lock on a file until it ends, and the kernel releases the lock however the
process ends, so nothing has to be counted. Two more such locks show whether processes live that outlast the one that
started them: the server, and its keeper (see `keeper`).
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
"""Seconds between two checks of a server that another process is starting."""

_used: dict[Path, int] = {}
"""The open lock file of each folder that this process uses."""
_starting = threading.Lock()
os.register_at_fork(after_in_child=_used.clear)  # a forked process is not a user itself


async def embedded_dsn(data: Path) -> str:
    """The DSN of the PostgreSQL in the data folder, which is made and started as needed.

    From now on this process is one of its users, until it ends; the server stops with the last of them. After a crash
    of the server, another call starts it again. Raises `ConfigurationError` if it cannot be made or started.
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
            _require_own(data, locks, cluster)
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


def _require_own(data: Path, locks: Path, cluster: Cluster) -> None:
    """`ConfigurationError` if somebody else could change what the server does and holds."""
    ours = {os.geteuid()}
    server = ours | ({cluster.account.uid} if cluster.account else set())
    for folder, owners in ((data, ours | {0}), (locks, ours), (cluster.folder, server)):
        if folder.exists() and folder.stat().st_uid not in owners:
            raise ConfigurationError(
                f"{folder} belongs to somebody else (user ID {folder.stat().st_uid}), who could change what is in it. "
                "Run Moorline as its owner, or set MOORLINE_DATA to a folder of your own."
            )


def _running(cluster: Cluster, locks: Path) -> str:
    """Starts the server unless it is running. Only one caller at a time may try."""
    cluster.create()
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        dsn = cluster.dsn()
        if dsn is not None:
            return dsn
        # Every process of a server holds this lock, also while it starts and after the server itself was killed.
        with suppress(BlockingIOError), _locked(locks / "server", fcntl.LOCK_EX | fcntl.LOCK_NB) as token:
            cluster.start(token=token)
            continue
        time.sleep(POLL)
    raise StoreUnavailable(
        f"The embedded PostgreSQL in {cluster.folder} is not ready after {START_TIMEOUT} s; try again."
    )


def _keep(cluster: Cluster, locks: Path) -> None:
    """Starts a keeper unless there is one. Its lock, too, is held as long as the process that inherited it lives."""
    with suppress(BlockingIOError), _locked(locks / "keeper", fcntl.LOCK_EX | fcntl.LOCK_NB) as token:
        account = f"{cluster.account.uid}:{cluster.account.gid}" if cluster.account else ""
        with cluster.opened(cluster.folder) as (name, descriptors):
            command = (str(locks / "users"), str(locks / "server"), account, *cluster.stop_command(name))
            subprocess.run(  # noqa: S603
                [sys.executable, "-I", "-S", keeper.__file__, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
                pass_fds=(token, *descriptors),
                start_new_session=True,
            )


@atexit.register
def _leave() -> None:
    """The last user stops the server when it ends normally, so that nothing outlives the program."""
    for data, users in _used.items():
        with suppress(BlockingIOError, FileNotFoundError):  # it never started
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
    """The file is closed, not unlocked: a process that inherited it keeps the lock."""
    file = _lock(path, operation)
    try:
        yield file
    finally:
        os.close(file)
