"""The versions of a component: one numbered .sql file each, in one folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable

from moorline_migrations.identifiers import require_name

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_DECLARED = re.compile(r"^-- (oldest code|erase|export): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Version:
    """One version of a component. Code that does not know the version `oldest_code` cannot run on it."""

    component: str
    number: int
    name: str
    sql: str = field(repr=False)
    oldest_code: int = field(default=0, repr=False)
    erase_function: str | None = field(default=None, repr=False)
    """The function that erases what the component has of a device, from this version on."""
    export_function: str | None = field(default=None, repr=False)
    """The function that exports it."""

    def __str__(self) -> str:
        return f"{self.component} {self.number:04} {self.name}"


def read(folder: Traversable, *, component: str) -> tuple[Version, ...]:
    """The versions in a folder, oldest first; ValueError if the numbers have gaps or repeat, or a declaration is wrong.

    A file called `0001_some_name.sql` is a version; `@schema` in it stands for the name of the schema. It may declare,
    each in a comment line of its own:

        -- oldest code: N      only code that knows version N runs on it; without this line any older code does
        -- erase: name         the function name(device text) RETURNS void erases what the component has of a device
        -- export: name        the function name(device text) RETURNS jsonb returns what the component has of a device
    """
    versions = sorted(_numbered(folder, component), key=lambda version: version.number)
    numbers = [version.number for version in versions]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"the versions must be numbered 1, 2, 3 … once each, but are {numbers}")
    return tuple(versions)


def _numbered(folder: Traversable, component: str) -> Iterator[Version]:
    for file in folder.iterdir():
        if found := _FILE.fullmatch(file.name):
            sql = file.read_text(encoding="utf-8")
            declared = dict(_DECLARED.findall(sql))
            oldest = declared.get("oldest code", "0")
            if not oldest.isdecimal():
                raise ValueError(f"{file.name}: the oldest code is the number of a version, not {oldest!r}")
            yield Version(
                component=component,
                number=int(found["number"]),
                name=found["name"],
                sql=sql,
                oldest_code=int(oldest),
                erase_function=_function(declared.get("erase"), file.name),
                export_function=_function(declared.get("export"), file.name),
            )


def _function(name: str | None, file: str) -> str | None:
    return None if name is None else require_name(name, f"a function, as {file} declares")
