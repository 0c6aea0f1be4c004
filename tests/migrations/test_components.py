"""A team's agent has tables of its own, in one folder of numbered .sql files."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorline_migrations import CORE, SCHEDULING, Migrations, apply, check, migrate, status
from moorline_migrations.components import distinct
from moorline_migrations.errors import ConfigurationError, SchemaMismatch

from .packages import BILLS, MakePackage, make_package

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["make_package"]

DOCS = Path(__file__).parents[2] / "docs" / "migrations.md"
Catalog = Callable[..., Awaitable[list[str]]]


async def test_a_component_is_migrated_after_the_core_and_goes_its_own_way(
    connection: "Connection[Record]", empty_dsn: str, make_package: MakePackage
) -> None:
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS}))
    applied = await migrate(empty_dsn, components=[CORE, billing])
    assert list(map(str, applied)) == [*map(str, CORE.versions), "billing 0001 bills"]
    await check(connection, components=[CORE, billing])
    reached = [each.current for each in await status(empty_dsn, components=[CORE, billing, SCHEDULING])]
    assert reached == [CORE.newest, 1, 0]

    more = Migrations(
        "billing",
        package=make_package("later", **{"0001_bills": BILLS, "0002_due": "ALTER TABLE @schema.bills ADD due date;"}),
    )
    with pytest.raises(SchemaMismatch, match=r"'billing' is at version 1 .*needs version 2.*`moorline migrate`"):
        await check(connection, components=[CORE, more])
    assert list(map(str, await migrate(empty_dsn, components=[CORE, more]))) == ["billing 0002 due"]
    # The previous version of the code goes on.
    await check(connection, components=[CORE, billing])


async def test_the_example_of_the_docs_is_one(connection: "Connection[Record]", make_package: MakePackage) -> None:
    [example] = re.findall(r"^```sql\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": example}))
    [*_, applied] = await apply(connection, components=[CORE, billing])
    assert (applied.erase_function, applied.export_function) == ("billing_erase", "billing_export")
    await connection.execute("INSERT INTO bills VALUES ('d1', 1, 4200), ('d2', 1, 100)")
    assert await connection.fetchval("SELECT billing_export('d1')") == "[4200]"
    await connection.execute("SELECT billing_erase('d1')")
    assert await connection.fetchval("SELECT device_id FROM bills") == "d2"


async def test_the_table_names_of_a_component_matter_to_nobody_else(
    connection: "Connection[Record]", empty_dsn: str, make_package: MakePackage
) -> None:
    await connection.execute("CREATE TABLE bills (theirs text)")
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS}))
    with pytest.raises(SchemaMismatch, match=r"set MOORLINE_SCHEMA.*bills"):
        await migrate(empty_dsn, components=[CORE, billing])
    # What the run applied before it stays.
    await check(connection, components=[CORE])


@pytest.mark.parametrize(
    ("declared", "missing"),
    [
        ("-- erase: forget_bills\n", r"billing registers a function forget_bills\(text\) RETURNS void"),
        ("-- export: forget_bills\n", r"billing registers a function forget_bills\(text\) RETURNS jsonb"),
        ("-- export: billing_erase\n" + BILLS.replace("-- export", "--"), r"billing_erase\(text\) RETURNS jsonb"),
    ],
)
async def test_a_function_that_is_registered_must_be_there(
    connection: "Connection[Record]", make_package: MakePackage, catalog: Catalog, declared: str, missing: str
) -> None:
    await apply(connection)
    before = await catalog(connection)
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": declared}))
    with pytest.raises(SchemaMismatch, match=missing):
        await apply(connection, components=[CORE, billing])
    assert await catalog(connection) == before
    assert await connection.fetchval("SELECT count(*) FROM moorline_schema WHERE component = 'billing'") == 0


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("cents     integer", "cents     integr", r'line 8: type "integr" does not exist\.'),
        ("NOT NULL,", "NOT NULLL,", r'line 8: syntax error at or near "NULLL"'),
        ("DELETE FROM", "DELET FROM", r'line \d+: syntax error at or near "DELET"'),
        ("TABLE @schema.bills", "TABLE bills", r"pg_catalog.*; write @schema\. before each of your names"),
        ("-- Bills", "SELECT 1/0; -- Bills", r"0001_bills\.sql: division by zero"),
    ],
)
async def test_a_mistake_in_a_file_is_told_with_its_place(
    empty_dsn: str, make_package: MakePackage, right: str, wrong: str, told: str
) -> None:
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS.replace(right, wrong)}))
    with pytest.raises(SchemaMismatch, match=rf"Version billing 0001 bills .*{told}.*Nothing of this version"):
        await migrate(empty_dsn, components=[CORE, billing])
    assert (await status(empty_dsn, components=[billing]))[0].current == 0


async def test_a_later_version_may_register_another_function(
    connection: "Connection[Record]", make_package: MakePackage
) -> None:
    renamed = """
    -- erase: billing_forget
    ALTER FUNCTION @schema.billing_erase(text) RENAME TO billing_forget;
    """.replace("    ", "")
    package = make_package("billing", **{"0001_bills": BILLS, "0002_forget": renamed})
    applied = await apply(connection, components=[Migrations("billing", package=package)])
    assert [version.erase_function for version in applied] == ["billing_erase", "billing_forget"]


@pytest.mark.parametrize("name", ["", "Billing", "bil-ling", "1st", "a; DROP TABLE x", "pg_billing", "b" * 64])
def test_a_name_that_is_no_plain_identifier_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a component"):
        Migrations(name, package="clinic.billing.sql")


def test_two_packages_under_one_name_are_refused() -> None:
    ours, theirs = Migrations("billing", package="clinic.billing.sql"), Migrations("billing", package="other.sql")
    with pytest.raises(ConfigurationError, match=r"'billing' is claimed by two packages, clinic\.billing\.sql and o"):
        distinct([CORE, ours, theirs])
    with pytest.raises(ConfigurationError, match="'moorline' is claimed by two packages"):
        distinct([CORE, Migrations("moorline", package="other.sql")])
    assert distinct([CORE, ours, CORE, ours]) == (CORE, ours)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no file such as 0001_first\.sql"),
        ({"0001_a": "", "0003_c": ""}, "must be numbered"),
        ({"0001_a": "-- erase: no name"}, r"0001_a\.sql declares"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(make_package: MakePackage, files: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _ = Migrations("billing", package=make_package("billing", **files)).versions


def test_a_package_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'billing' cannot be read from package 'clinic\.nowhere\.sql'"):
        _ = Migrations("billing", package="clinic.nowhere.sql").versions
