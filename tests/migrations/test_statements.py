"""SQL is read by name from the .sql files of a package, with its fragments in place."""

import sys
from pathlib import Path

import pytest

from moorline_migrations.errors import ConfigurationError
from moorline_migrations.statements import Statement, expand, fragments, load


def package(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    """The name of a package with these .sql files."""
    (folder / name).mkdir()
    for file, sql in files.items():
        (folder / name / f"{file}.sql").write_text(sql)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


FIRST = """
-- What stands before the first block is for readers.

-- name: one repeatable
-- A comment.
SELECT 1
FROM @schema.t;

-- name: two
SELECT 2
"""


def test_a_block_goes_from_its_header_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(package("blocks", tmp_path, monkeypatch, first=FIRST, second="-- name: three\nSELECT 3;\n"), "chat")
    assert set(found.values()) == {
        Statement("one", 'SELECT 1\nFROM "chat".t', repeatable=True),
        Statement("two", "SELECT 2", repeatable=False),
        Statement("three", "SELECT 3", repeatable=False),
    }
    assert found["two"].name == "two"


def test_a_fragment_stands_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(
        "fragments",
        tmp_path,
        monkeypatch,
        expiry="-- fragment: expiry\n-- When it ends.\n@alias.used_at + @alias.ttl\n",
        live="-- fragment: live\n@alias.agent IS NOT NULL AND @expiry(@alias) > $1\n",
        reads="-- name: read\nSELECT FROM @schema.t AS s WHERE NOT @live(s) AND @live(excluded)\n",
    )
    live = "({0}.agent IS NOT NULL AND ({0}.used_at + {0}.ttl) > $1)"
    expected = f'SELECT FROM "public".t AS s WHERE NOT {live.format("s")} AND {live.format("excluded")}'
    assert load(name, "public")["read"].sql == expected
    assert expand("@expiry(x)", fragments(name)) == "(x.used_at + x.ttl)"
    assert "live" not in load(name, "public")


def test_a_fragment_that_is_missing_is_said_when_the_package_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="no fragment live"):
        load(package("missing", tmp_path, monkeypatch, reads="-- name: read\nSELECT @live(s)\n"), "public")


@pytest.mark.parametrize("kind", ["name", "fragment"])
def test_a_name_that_is_there_twice_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = f"-- {kind}: again\nSELECT 1\n"
    name = package(f"twice_{kind}", tmp_path, monkeypatch, a=block, b=block)
    with pytest.raises(ValueError, match="are named again"):
        load(name, "public")


def test_a_schema_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        load("moorline_checkpoint.sql", 'a"b')
