"""The versions come from the names of the files, and every number occurs once."""

from pathlib import Path

import pytest

from moorline_migrations import CORE, SCHEDULING, SHIPPED
from moorline_migrations.errors import ConfigurationError
from moorline_migrations.versions import read


def folder_with(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql)
    return folder


def test_versions_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, **{"0002_second": "B", "0001_first": "A", "schema": "whole", "0003_": "no name"})
    versions = read(folder, component="billing")
    assert [(v.component, v.number, v.name, v.sql) for v in versions] == [
        ("billing", 1, "first", "A"),
        ("billing", 2, "second", "B"),
    ]
    assert str(versions[0]) == "billing 0001 first"


@pytest.mark.parametrize("names", [("0001_a", "0003_c"), ("0001_a", "0001_b"), ("0002_b",)])
def test_a_gap_or_a_repeated_number_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be numbered"):
        read(folder_with(tmp_path, **dict.fromkeys(names, "")), component="billing")


def test_a_version_says_which_code_it_needs(tmp_path: Path) -> None:
    folder_with(tmp_path, **{"0001_a": "SELECT 1;", "0002_b": "-- Renames.\n-- oldest code: 2\nSELECT 1;"})
    assert [version.oldest_code for version in read(tmp_path, component="billing")] == [0, 2]


def test_a_version_registers_how_a_device_is_erased_and_exported(tmp_path: Path) -> None:
    folder_with(tmp_path, **{"0001_a": "-- erase: billing_erase\n-- export: billing_export\n", "0002_b": "SELECT 1;"})
    versions = read(tmp_path, component="billing")
    assert [(v.erase_function, v.export_function) for v in versions] == [
        ("billing_erase", "billing_export"),
        (None, None),
    ]


@pytest.mark.parametrize("line", ["erase: billing.erase", "export: drop table", "erase: ", "oldest code: the last"])
def test_a_declaration_that_cannot_be_meant_is_refused_with_its_file(tmp_path: Path, line: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=r"0001_a\.sql"):
        read(folder_with(tmp_path, **{"0001_a": f"-- {line}\n"}), component="billing")


def test_the_package_holds_its_versions() -> None:
    assert str(CORE.versions[0]) == "moorline 0001 conversations"
    assert str(SCHEDULING.versions[0]) == "scheduling 0001 appointments"
    assert all("\\i" not in version.sql.replace("-c '\\i ", "") for each in SHIPPED for version in each.versions)
