"""A schema's name goes into SQL only if it is a plain name, and only in place of the token."""

import pytest

from moorline_migrations.errors import ConfigurationError
from moorline_migrations.identifiers import in_schema, quoted


@pytest.mark.parametrize("name", ["public", "moorline", "_m2", "select", "a" * 63])
def test_a_plain_name_is_quoted(name: str) -> None:
    assert quoted(name) == f'"{name}"'


@pytest.mark.parametrize(
    "name", ["", "Public", "a-b", 'a"b', "a'b", "1a", "a b", "a;", "a" * 64, "pg_temp", "a\n", "ä"]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a schema"):
        quoted(name)


def test_only_the_token_is_replaced() -> None:
    sql = "SELECT '@schema.t'::regclass, '{x}', $1 FROM @schema.t"
    assert in_schema(sql, "chat") == """SELECT '"chat".t'::regclass, '{x}', $1 FROM "chat".t"""
