"""The name of the schema, checked and quoted, and its one place in our SQL: the token `@schema`."""

import re

from moorline_migrations.errors import ConfigurationError

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def quoted(schema: str) -> str:
    """The schema's name as an SQL identifier; ConfigurationError unless it is a plain lower-case name."""
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            f"{schema!r} cannot name a schema: up to 63 of a-z, 0-9 and _, and neither a digit nor pg_ first"
        )
    return f'"{schema}"'


def in_schema(sql: str, schema: str) -> str:
    """The SQL with each `@schema` replaced by the schema's quoted name; nothing else is ever replaced."""
    return sql.replace("@schema", quoted(schema))
