"""The versions come from the names of the files, and every number is there once."""

from pathlib import Path

import pytest

from moorline_migrations.versions import known, read


def folder_with(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql)
    return folder


def test_versions_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, **{"0002_second": "B", "0001_first": "A", "schema": "whole", "0003_": "no name"})
    assert [(v.number, v.name, v.sql) for v in read(folder)] == [(1, "first", "A"), (2, "second", "B")]


@pytest.mark.parametrize("names", [("0001_a", "0003_c"), ("0001_a", "0001_b"), ("0002_b",)])
def test_a_gap_or_a_repeated_number_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be numbered"):
        read(folder_with(tmp_path, **dict.fromkeys(names, "")))


def test_an_included_file_stands_in_its_place(tmp_path: Path) -> None:
    folder_with(tmp_path, **{"0001_a": "before\n\\ir part.sql\nafter", "part": "part \\1"})
    assert read(tmp_path)[0].sql == "before\npart \\1\nafter"


def test_a_version_says_which_code_it_needs(tmp_path: Path) -> None:
    folder_with(tmp_path, **{"0001_a": "SELECT 1;", "0002_b": "-- Renames.\n-- oldest code: 2\nSELECT 1;"})
    assert [version.oldest_code for version in read(tmp_path)] == [0, 2]


def test_the_package_holds_its_versions() -> None:
    assert [str(version) for version in known()][:2] == ["0001 conversations", "0002 appointments"]
