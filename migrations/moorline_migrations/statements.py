"""The SQL of a package: named blocks in its .sql files, read once for each schema."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from moorline_migrations.identifiers import in_schema

_HEADER = re.compile(r"^-- name: (\w+)( repeatable)?$", re.MULTILINE)
_FRAGMENT = re.compile(r"^-- fragment: (\w+)(?:\((\w+)\))?$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_TOKEN = re.compile(r"@(?!schema\b)\w+")
_FRAGMENTS = "fragments.sql"


@dataclass(frozen=True)
class Statement:
    """One SQL statement. `repeatable`: running it twice has the same effect and result as running it once."""

    name: str
    sql: str
    repeatable: bool


@dataclass(frozen=True)
class Fragment:
    """A condition that statements share, written `@name`, or `@name(text)` if it takes a parameter."""

    name: str
    parameter: str | None
    sql: str

    def put_into(self, text: str) -> str:
        """The text with the fragment put in."""
        if self.parameter is None:
            return re.sub(rf"@{self.name}\b", lambda _: self.sql, text)
        token = re.compile(rf"@{self.name}\(((?:[^()]|\(\))+)\)")
        own = re.compile(rf"@{self.parameter}\b")
        return token.sub(lambda found: own.sub(lambda _: found[1], self.sql), text)


@cache
def load(package: str, schema: str) -> Mapping[str, Statement]:
    """Every statement of the .sql files in a package's folder, by name, for the tables of `schema`.

    A block begins with the line `-- name: some_name` or `-- name: some_name repeatable` and ends before the next such
    line. In it `@schema` stands for the schema's name, and `@` with a fragment's name for the fragment.

    Raises `ConfigurationError` if `schema` cannot be a schema's name, `ValueError` for a name that two blocks have and
    for a missing fragment.
    """
    found: dict[str, Statement] = {}
    for file in files(package).iterdir():
        if file.name.endswith(".sql") and file.name != _FRAGMENTS:
            for statement in _blocks(_whole(file.read_text(encoding="utf-8"), fragments(package)), schema):
                if statement.name in found:
                    raise ValueError(f"two statements of {package} are named {statement.name}")
                found[statement.name] = statement
    return MappingProxyType(found)


@cache
def fragments(package: str) -> tuple[Fragment, ...]:
    """The fragments of a package's fragments.sql, if there is one. A fragment may use those above it.

    A fragment begins with the line `-- fragment: some_name` or `-- fragment: some_name(parameter)`; in the second case
    `@parameter` in it stands for the text in the parentheses where it is used.
    """
    file = files(package) / _FRAGMENTS
    _, *parts = _FRAGMENT.split(file.read_text(encoding="utf-8") if file.is_file() else "")
    made: list[Fragment] = []
    for name, parameter, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        made.append(Fragment(name, parameter, _whole(_COMMENT.sub("", body).strip(), made)))
    return tuple(made)


def _whole(text: str, parts: Iterable[Fragment]) -> str:
    for fragment in parts:
        text = fragment.put_into(text)
    return text


def _blocks(text: str, schema: str) -> Iterator[Statement]:
    _, *parts = _HEADER.split(text)
    for name, repeatable, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        sql = _COMMENT.sub("", body).strip().removesuffix(";")
        if left := _TOKEN.search(sql):
            raise ValueError(f"the statement {name} names a fragment that is missing: {left[0]}")
        yield Statement(name=name, sql=in_schema(sql, schema), repeatable=repeatable is not None)
