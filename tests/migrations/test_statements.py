"""SQL is read by name from the .sql files of a package, with its fragments put in."""

import sys
from pathlib import Path

import pytest

from moorline_migrations.errors import ConfigurationError
from moorline_migrations.statements import Statement, fragments, load


def package(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    """Creates a package with these .sql files and returns its name."""
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


FRAGMENTS = """
-- fragment: last_used
-- The last of both.
greatest(s.used_at, s.locked_at)

-- fragment: live(moment)
s.agent IS NOT NULL AND @moment - @last_used < s.ttl
"""


def test_a_fragment_stands_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(
        "fragments",
        tmp_path,
        monkeypatch,
        fragments=FRAGMENTS,
        reads="-- name: read\nSELECT @last_used FROM @schema.t s WHERE @live(clock_timestamp())\n",
    )
    last_used = "greatest(s.used_at, s.locked_at)"
    live = f"s.agent IS NOT NULL AND clock_timestamp() - {last_used} < s.ttl"
    assert load(name, "public")["read"].sql == f'SELECT {last_used} FROM "public".t s WHERE {live}'  # noqa: S608
    assert [(each.name, each.parameter) for each in fragments(name)] == [("last_used", None), ("live", "moment")]
    assert fragments(name)[1].put_into("NOT (@live($1))").endswith(f"AND $1 - {last_used} < s.ttl)")


def test_a_fragment_that_is_missing_is_said_when_the_package_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"read names a fragment that is missing: @live"):
        load(package("missing", tmp_path, monkeypatch, reads="-- name: read\nSELECT @live(s)\n"), "public")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "-- name: again\nSELECT 1\n"
    with pytest.raises(ValueError, match="are named again"):
        load(package("twice", tmp_path, monkeypatch, a=block, b=block), "public")


def test_a_schema_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        load("moorline_checkpoint.sql", 'a"b')
