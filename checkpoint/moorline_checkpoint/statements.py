"""The SQL of this package: named blocks in the .sql files, read once for each schema."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from moorline_migrations.identifiers import in_schema

_HEADER = re.compile(r"^-- name: (\w+)( repeatable)?$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Statement:
    """One SQL statement. `repeatable`: running it twice leaves and gives what running it once does."""

    name: str
    sql: str
    repeatable: bool


@cache
def load(schema: str) -> Mapping[str, Statement]:
    """Every statement by its name, for the tables of this schema; ConfigurationError if that cannot name one.

    A block begins with the line `-- name: some_name` or `-- name: some_name repeatable`.
    """
    found: dict[str, Statement] = {}
    for file in (files("moorline_checkpoint") / "sql").iterdir():
        if file.name.endswith(".sql"):
            for statement in _blocks(in_schema(file.read_text(encoding="utf-8"), schema)):
                if statement.name in found:
                    raise ValueError(f"two statements are named {statement.name}")
                found[statement.name] = statement
    return MappingProxyType(found)


def _blocks(text: str) -> Iterator[Statement]:
    _, *parts = _HEADER.split(text)
    for name, repeatable, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        sql = _COMMENT.sub("", body).strip()
        yield Statement(name=name, sql=sql, repeatable=repeatable is not None)
