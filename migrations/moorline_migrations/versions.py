"""The versions of the schema, as the package holds them: one numbered .sql file each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_OLDEST_CODE = re.compile(r"^-- oldest code: (\d+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^\\ir (\S+)$", re.MULTILINE)
_FOLDER = files("moorline_migrations") / "sql"


@dataclass(frozen=True)
class Version:
    """One step of the schema. Code that does not know version `oldest_code` cannot run on it."""

    number: int
    name: str
    oldest_code: int = field(repr=False)
    sql: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"


@cache
def known() -> tuple[Version, ...]:
    """Every version this code knows, oldest first."""
    return read(_FOLDER)


def sql_text(name: str) -> str:
    """One of the package's .sql files, its includes in place."""
    return _resolved(_FOLDER, name)


def read(folder: Traversable) -> tuple[Version, ...]:
    """The versions in a folder, oldest first; ValueError where the numbers leave a gap or repeat.

    A file called `0001_some_name.sql` is a version. A line `\\ir other.sql` in it stands for that file, as in
    psql. A version on which older code cannot run says so in a line `-- oldest code: N`: only code that knows
    version N runs on it. Without that line any older code is taken to fit.
    """
    versions = sorted(_numbered(folder), key=lambda version: version.number)
    numbers = [version.number for version in versions]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"the versions must be numbered 1, 2, 3 … once each, but are {numbers}")
    return tuple(versions)


def _numbered(folder: Traversable) -> Iterator[Version]:
    for file in folder.iterdir():
        if found := _FILE.fullmatch(file.name):
            sql = _resolved(folder, file.name)
            oldest = _OLDEST_CODE.search(sql)
            yield Version(
                number=int(found["number"]),
                name=found["name"],
                oldest_code=int(oldest[1]) if oldest else 0,
                sql=sql,
            )


def _resolved(folder: Traversable, name: str) -> str:
    sql = (folder / name).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda line: _resolved(folder, line[1]), sql)
