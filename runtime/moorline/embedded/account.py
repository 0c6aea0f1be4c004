"""The account that runs the server if Moorline itself runs as root, which PostgreSQL refuses to do."""

import logging
import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moorline.errors import ConfigurationError

logger = logging.getLogger("moorline.embedded")

NAME = "pgserver"
"""The user for a folder that is new or root's; it is made if it does not exist."""

_READ, _PASS = 0o004, 0o001


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user and group of the system."""

    uid: int
    gid: int

    @classmethod
    def for_folder(cls, folder: Path) -> Self | None:
        """The folder's owner, or `NAME` if that is root or nobody yet; None unless this process runs as root."""
        if os.geteuid() != 0:
            return None
        if folder.exists() and folder.stat().st_uid != 0:
            owner = folder.stat()
            return cls(uid=owner.st_uid, gid=owner.st_gid)
        entry = _entry()
        return cls(uid=entry.pw_uid, gid=entry.pw_gid)

    @property
    def process(self) -> dict[str, Any]:
        """The arguments of `subprocess.run` that start a process as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, folder: Path) -> None:
        """Makes the account the owner of a folder."""
        os.chown(folder, self.uid, self.gid, follow_symlinks=False)

    def admit(self, programs: Path, folder: Path) -> None:
        """Gives the account the folder, and lets it pass through the folders above it and above the programs.

        Others can pass through them too then, but still cannot list what they hold.
        """
        self.own(folder)
        for above in {*folder.parents, *programs.parents}:
            mode = above.stat().st_mode
            if not mode & _PASS and above.stat().st_uid != self.uid:
                logger.warning("PostgreSQL does not run as root: letting its account pass through %s.", above)
                above.chmod(mode | _PASS)
        if not programs.stat().st_mode & _READ:  # installed under a strict umask
            for path in (programs.parent, *programs.parent.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(mode | _READ | (_PASS if mode & 0o100 else 0))


def _entry() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        pass
    try:
        subprocess.run(["useradd", "--system", NAME], check=True, capture_output=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the user {NAME} could not be made for it. "
            "Run Moorline as another user, or set DATABASE_URL."
        ) from error
    return pwd.getpwnam(NAME)
