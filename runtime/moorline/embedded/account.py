"""The account that runs the server if Moorline itself runs as root, which PostgreSQL refuses to do."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moorline.errors import ConfigurationError

NAME = "pgserver"
"""The user that runs the server; it is made if it does not exist."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user and group of the system."""

    uid: int
    gid: int

    @classmethod
    def needed(cls) -> Self | None:
        """The account `NAME`; None unless this process runs as root."""
        if os.geteuid() != 0:
            return None
        entry = _entry()
        return cls(uid=entry.pw_uid, gid=entry.pw_gid)

    @property
    def process(self) -> dict[str, Any]:
        """The arguments of `subprocess.run` that start a process as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, folder: Path) -> None:
        """Makes the account the owner of a folder."""
        os.chown(folder, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, folder: Path) -> bool:
        """Whether the account may pass through all folders above this one."""
        return all(self.passes(above) for above in folder.parents)

    def passes(self, folder: Path) -> bool:
        """Whether the account may pass through this folder."""
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & 0o100)
        return bool(found.st_mode & (0o010 if found.st_gid == self.gid else 0o001))


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
