"""The SQL of a package: named blocks in its .sql files, read once for each schema."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from moorline_migrations.identifiers import in_schema

_HEADER = re.compile(r"^-- (?P<kind>name|fragment): (?P<name>\w+)(?P<repeatable> repeatable)?$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_USE = re.compile(r"@(\w+)\((\w+)\)")
_ALIAS = re.compile(r"@alias\b")


@dataclass(frozen=True)
class Statement:
    """One SQL statement. `repeatable`: running it twice leaves and gives what running it once does."""

    name: str
    sql: str
    repeatable: bool


@cache
def load(package: str, schema: str) -> Mapping[str, Statement]:
    """Every statement of the .sql files in a package's folder, by name, for the tables of `schema`.

    A block begins with the line `-- name: some_name`, or `-- name: some_name repeatable`, and goes on to the next such
    line. A block that begins with `-- fragment: some_name` is an expression for the statements of the same package:
    `@some_name(t)` stands for it, in parentheses, with `t` wherever the fragment has `@alias`.

    Raises `ConfigurationError` if `schema` cannot name one, `ValueError` for a name that two blocks have and for a
    fragment that is missing.
    """
    known = fragments(package)
    return MappingProxyType(
        {
            block.name: Statement(block.name, in_schema(expand(block.sql, known), schema), block.repeatable)
            for block in _of_kind("name", package)
        }
    )


@cache
def fragments(package: str) -> Mapping[str, str]:
    """The text of every fragment of a package's .sql files, by name, as it is written there."""
    return MappingProxyType({block.name: block.sql for block in _of_kind("fragment", package)})


def expand(sql: str, fragments: Mapping[str, str]) -> str:
    """The SQL with each `@some_name(alias)` replaced by that fragment, which may itself use others."""

    def text(use: re.Match[str]) -> str:
        name, alias = use.groups()
        if name not in fragments:
            raise ValueError(f"there is no fragment {name}")
        return f"({expand(_ALIAS.sub(alias, fragments[name]), fragments)})"

    return _USE.sub(text, sql)


@dataclass(frozen=True)
class _Block:
    kind: str
    name: str
    sql: str
    repeatable: bool


def _of_kind(kind: str, package: str) -> Iterator[_Block]:
    seen: set[str] = set()
    for file in files(package).iterdir():
        if not file.name.endswith(".sql"):
            continue
        for block in _blocks(file.read_text(encoding="utf-8")):
            if block.kind != kind:
                continue
            if block.name in seen:
                raise ValueError(f"two blocks of {package} are named {block.name}")
            seen.add(block.name)
            yield block


def _blocks(text: str) -> Iterator[_Block]:
    headers = list(_HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        sql = _COMMENT.sub("", text[header.end() : end]).strip().removesuffix(";")
        yield _Block(header["kind"], header["name"], sql, header["repeatable"] is not None)
