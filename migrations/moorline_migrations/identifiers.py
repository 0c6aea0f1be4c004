"""Names that go into SQL, checked and quoted, and the token `@schema` that stands for the schema's."""

import re

from moorline_migrations.errors import ConfigurationError

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def require_name(name: str, kind: str) -> str:
    """The name, if it can be an identifier of ours in SQL; ConfigurationError unless it is a plain lower-case name.

    `kind` is what it names, such as "a schema".
    """
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise ConfigurationError(
            f"{name!r} cannot name {kind}: use up to 63 of a-z, 0-9 and _, beginning neither with a digit nor with pg_"
        )
    return name


def quoted(schema: str) -> str:
    """The schema's name as an SQL identifier; ConfigurationError unless it is a plain lower-case name."""
    return f'"{require_name(schema, "a schema")}"'


def in_schema(sql: str, schema: str) -> str:
    """The SQL with each `@schema` replaced by the schema's quoted name, and nothing else replaced."""
    return sql.replace("@schema", quoted(schema))
