"""One PostgreSQL cluster on disk: create it, start its server, stop it. When to do so is up to the caller."""

import hashlib
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Self
from urllib.parse import urlencode

from moorline.embedded.account import Account
from moorline.embedded.programs import programs
from moorline.errors import ConfigurationError

START_TIMEOUT = 60
"""Seconds, including crash recovery."""

PORT = 5432
"""Only part of the socket's name: the server does not listen on any network."""

SOCKET = f".s.PGSQL.{PORT}"

LOG = "server.log"
"""The server's log, in its folder."""

HERE = "."
"""The server's name for its own folder."""

OPEN_FILES = Path("/proc/self/fd")
"""Where Linux shows the open files of a process to itself."""

MAX_FOLDER = 88
"""Bytes; systems allow 103 or 107 with the socket's name."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster: its folder, the programs of its version, and the account that runs them (None: ours)."""

    folder: Path
    programs: Path
    account: Account | None

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Raises `ConfigurationError` if the wheel is missing, no longer has the folder's version, or cannot be run."""
        account = Account.needed()
        return cls(folder=folder, programs=programs(_version(folder), account), account=account)

    def dsn(self) -> str | None:
        """The DSN of the running server; None if it does not accept connections."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8 or lines[7].strip() != "ready":  # noqa: PLR2004 (the file's eight lines)
            return None
        sockets = lines[4]
        if sockets == HERE:
            sockets = str(self.folder)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(f"{sockets}/{SOCKET}")
            except OSError:
                return None
        return f"postgresql://postgres@/postgres?{urlencode({'host': sockets, 'port': PORT})}"

    def create(self) -> None:
        """Makes the cluster if there is none; an existing one is complete."""
        if self.folder.exists():
            return
        unfinished = self.folder.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        with self.opened(unfinished) as (name, descriptors):
            self._run(
                "initdb",
                *("-D", name, "-U", "postgres", "--auth=trust", "--no-instructions"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                account=self.account,
                inherit=descriptors,
            )
        unfinished.rename(self.folder)

    def copy(self, folder: Path, dsn: str) -> None:
        """Makes the folder a copy of this cluster, whose server runs, with all that it needs to be started."""
        unfinished = folder.with_suffix(".new")
        try:
            # As ourselves: the account may not reach the folder, and the program runs as root as well.
            self._run(
                "pg_basebackup",
                *("-D", str(unfinished), "-d", dsn, "--wal-method=stream", "--checkpoint=fast", "--no-password"),
                account=None,
            )
            (unfinished / LOG).unlink(missing_ok=True)
            for path in (unfinished, *unfinished.rglob("*")):
                self._hand_over(path)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def start(self, *, token: int) -> None:
        """Starts the server. It and all its processes inherit the file descriptor `token` until they end.

        The caller has made sure that no process of an earlier server is alive.
        """
        self._hand_over(self.folder)
        sockets = self._socket_folder()
        # After a crash another process may have the ID in these files, and PostgreSQL would take it for a server.
        for stale in (self.folder / "postmaster.pid", sockets / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)
        with self.opened(self.folder) as (name, descriptors):
            where = HERE if descriptors and sockets == self.folder else str(sockets)
            options = f"-p {PORT} -c listen_addresses= -c unix_socket_directories={shlex.quote(where)}"
            self._run(
                "pg_ctl",
                *("-D", name, "-l", f"{name}/{LOG}", "-o", options),
                *("-w", "-t", str(START_TIMEOUT), "start"),
                account=self.account,
                inherit=(token, *descriptors),
            )

    def stop(self) -> None:
        """Stops the server; returns when it has stopped, or when stopping it has failed."""
        quiet = subprocess.DEVNULL
        account = self.account.process if self.account else {}
        with self.opened(self.folder) as (name, descriptors):
            command = self.stop_command(name)
            subprocess.run(  # noqa: S603
                command,
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                check=False,
                cwd="/",
                pass_fds=descriptors,
                **account,
            )

    def stop_command(self, name: str) -> list[str]:
        """The command that stops the server, and ends once it has stopped. `name` is the folder's, as `opened` gives
        it."""
        return [str(self.programs / "pg_ctl"), "-D", name, "-m", "fast", "-w", "stop"]

    @contextmanager
    def opened(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name under which the server's account can open the folder, and the file descriptors that a process must
        inherit for that. If a folder above is private, the account is not let through: it is handed the open folder."""
        if self.account is None or self.account.reaches(folder):
            yield str(folder), ()
            return
        if not OPEN_FILES.exists():
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and a folder above {folder} is private. Set MOORLINE_DATA to a "
                "folder that other users may pass through to, or DATABASE_URL to a server of your own."
            )
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield str(OPEN_FILES / str(descriptor)), (descriptor,)
        finally:
            os.close(descriptor)

    def _hand_over(self, folder: Path) -> None:
        if self.account is not None:
            self.account.own(folder)

    def _socket_folder(self) -> Path:
        """The cluster's own folder, which only its owner may enter, or a similar one if that path is too long."""
        if len(os.fsencode(self.folder)) <= MAX_FOLDER and "," not in str(self.folder):
            return self.folder
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        folder = Path(gettempdir(), f"moorline-{name}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account is not None:
            self.account.own(folder)
        found = folder.lstat()
        if found.st_uid != self.folder.stat().st_uid or found.st_mode & 0o077 or folder.is_symlink():
            raise ConfigurationError(f"{folder} is not private to its owner; set MOORLINE_DATA to a shorter path.")
        return folder

    def _run(self, program: str, *arguments: str, account: Account | None, inherit: Sequence[int] = ()) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(  # noqa: S603
            [str(self.programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=environment | {"LC_ALL": "C"},
            pass_fds=inherit,
            **(account.process if account else {}),
        )
        if done.returncode:
            raise ConfigurationError(self._explain(program, done.stdout))

    def _explain(self, program: str, output: str) -> str:
        log = self.folder / LOG
        told = output + (log.read_text(errors="replace")[-2000:] if log.exists() else "")
        if "No space left on device" in told:
            return f"The disk of {self.folder} is full; free some space, or move MOORLINE_DATA to another disk."
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        reasons = [line for line in lines if re.search("error:|FATAL:|PANIC:", line)] or lines[-3:]
        return (
            f"The embedded PostgreSQL in {self.folder} cannot be used; {program} failed with {' '.join(reasons)!r}. "
            "Fix that, or set DATABASE_URL to a server of your own."
        )


def _version(folder: Path) -> str | None:
    try:
        return (folder / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return None
