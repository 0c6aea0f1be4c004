"""The session-lock columns can be added and removed with plain psql: twice without harm, and back to the original
table."""

import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moorline_migrations import CORE, SHIPPED, Migrations, apply, migrate, script

from .packages import BILLS, MakePackage, make_package

if TYPE_CHECKING:
    from asyncpg import Connection, Record

Catalog = Callable[..., Awaitable[list[str]]]
Backend = Callable[[str], str]
Psql = Callable[..., "subprocess.CompletedProcess[str]"]

__all__ = ["make_package"]

BACKENDS = ["uuid_key", "uuid_device", "repeated_key"]
SQL = files("moorline_migrations") / "sql"
ROWS = "SELECT s::text AS row FROM conversation_states s ORDER BY s::text"
# Changes to a backend that let it be adopted without changing its values.
ADOPTABLE = {
    "uuid_key": "UPDATE conversation_states SET locked_at = now() WHERE active_agent IS NOT NULL",
    "required_column": "ALTER TABLE conversation_states ALTER COLUMN tenant DROP NOT NULL",
}
OURS = "INSERT INTO conversation_states (device_id) VALUES ('00000000-0000-4000-8000-000000000009')"


@pytest.fixture
def run(psql: Psql, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs one of the package's scripts with psql's \\i, alone in a folder, after some SQL."""

    def run(name: str, *, first: str = "") -> "subprocess.CompletedProcess[str]":
        with as_file(SQL / name) as source:
            script = shutil.copy(source, tmp_path)
        return psql(stdin=f"{first}\n\\i {script}\n")

    return run


@pytest.mark.parametrize("name", BACKENDS)
async def test_the_columns_are_added_as_by_the_migration(
    connection: "Connection[Record]", backend: Backend, catalog: Catalog, run: Psql, name: str
) -> None:
    await connection.execute(backend(name))
    for _ in range(2):
        done = run("add_session_lock_fields.sql")
        assert (done.returncode, done.stderr) == (0, "")
    added = [line for line in await catalog(connection) if "conversation_states" in line]
    assert await connection.execute(OURS) == "INSERT 0 1"

    assert await apply(connection) == list(CORE.versions)
    migrated = [line for line in await catalog(connection) if "conversation_states" in line]
    assert set(added) <= set(migrated)
    columns = [line for line in migrated if line.startswith("column conversation_states") and line not in added]
    later = "".join(version.sql for version in CORE.versions[1:])
    assert not [line for line in columns if f"ADD COLUMN {line.split('.')[1].split()[0]} " not in later]


def test_the_script_and_the_migration_adopt_by_the_same_words() -> None:
    script, migration = (
        re.findall(r"DO \$adopt\$.*?\$adopt\$;", path.read_text(encoding="utf-8"), re.DOTALL)
        for path in (SQL / "add_session_lock_fields.sql", SQL / "moorline" / "0001_conversations.sql")
    )
    assert len(script) == 1
    assert migration == script, "change both, or, once 0001 has landed, the script and the next numbered file"


async def test_running_it_again_changes_nothing(
    connection: "Connection[Record]", backend: Backend, catalog: Catalog, run: Psql
) -> None:
    await connection.execute(backend("uuid_key"))
    run("add_session_lock_fields.sql")
    before = await catalog(connection), await connection.fetch(ROWS)
    assert run("add_session_lock_fields.sql").returncode == 0
    assert (await catalog(connection), await connection.fetch(ROWS)) == before


async def test_the_table_of_the_search_path_is_meant(
    connection: "Connection[Record]", catalog: Catalog, run: Psql
) -> None:
    for schema in ("chat", "public"):
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute(f"CREATE TABLE {schema}.conversation_states (phone text PRIMARY KEY)")
    before = await catalog(connection, "public")
    assert run("add_session_lock_fields.sql", first="SET search_path = chat, public;").returncode == 0
    assert await catalog(connection, "public") == before
    await connection.execute("INSERT INTO chat.conversation_states (device_id) VALUES ('+49 30 1')")
    assert await connection.fetchval("SELECT phone FROM chat.conversation_states") == "+49 30 1"


async def test_without_the_table_it_says_what_to_do(run: Psql) -> None:
    done = run("add_session_lock_fields.sql")
    assert done.returncode != 0
    assert "no table conversation_states" in done.stderr
    assert "moorline migrate" in done.stderr


async def test_a_required_column_is_refused_by_name(
    connection: "Connection[Record]", backend: Backend, catalog: Catalog, run: Psql
) -> None:
    await connection.execute(backend("required_column"))
    before = await catalog(connection)
    done = run("add_session_lock_fields.sql")
    assert done.returncode != 0
    assert "ALTER COLUMN tenant SET DEFAULT" in done.stderr
    assert await catalog(connection) == before


@pytest.mark.parametrize("name", ["uuid_key", "required_column"])
async def test_taking_it_back_leaves_what_was(
    connection: "Connection[Record]", backend: Backend, catalog: Catalog, run: Psql, name: str
) -> None:
    await connection.execute(backend(name))
    await connection.execute(ADOPTABLE[name])
    before = await catalog(connection), await connection.fetch(ROWS)
    assert run("add_session_lock_fields.sql").returncode == 0
    assert await catalog(connection) != before[0]
    for _ in range(2):
        done = run("remove_session_lock_fields.sql")
        assert done.returncode == 0, done.stderr
    assert (await catalog(connection), await connection.fetch(ROWS)) == before


async def test_rows_of_ours_stay_the_backends(connection: "Connection[Record]", backend: Backend, run: Psql) -> None:
    await connection.execute(backend("repeated_key"))
    run("add_session_lock_fields.sql")
    await connection.execute(OURS)
    assert run("remove_session_lock_fields.sql").returncode == 0
    assert (
        await connection.fetchval("SELECT count(*) FROM conversation_states WHERE patient_profile_id LIKE '0%9'") == 1
    )


async def test_a_migrated_schema_is_taken_back_in_two_steps(
    connection: "Connection[Record]", empty_dsn: str, backend: Backend, catalog: Catalog, run: Psql
) -> None:
    await connection.execute(backend("uuid_key"))
    await connection.execute("UPDATE conversation_states SET locked_at = now() WHERE active_agent IS NOT NULL")
    before = await catalog(connection), await connection.fetch(ROWS)
    await migrate(empty_dsn)

    refused = run("remove_session_lock_fields.sql")
    assert refused.returncode != 0
    assert "remove_moorline.sql first" in refused.stderr
    for name in ("remove_moorline.sql", "remove_moorline.sql", "remove_session_lock_fields.sql"):
        done = run(name)
        assert done.returncode == 0, done.stderr
    assert (await catalog(connection), await connection.fetch(ROWS)) == before
    assert await migrate(empty_dsn) == list(CORE.versions)


async def test_a_schema_of_our_own_is_removed_whole(
    connection: "Connection[Record]", empty_dsn: str, catalog: Catalog, run: Psql
) -> None:
    await migrate(empty_dsn, components=SHIPPED)
    done = run("remove_moorline.sql")
    assert (done.returncode, done.stderr) == (0, "")
    assert await catalog(connection) == []


async def test_tables_of_a_teams_component_are_not_removed_and_keep_the_rest_in(
    connection: "Connection[Record]", empty_dsn: str, catalog: Catalog, run: Psql, make_package: MakePackage
) -> None:
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS}))
    await migrate(empty_dsn, components=[*SHIPPED, billing])
    before = await catalog(connection)
    refused = run("remove_moorline.sql")
    assert refused.returncode != 0
    assert "schema public holds tables of other components: billing" in refused.stderr
    assert await catalog(connection) == before

    await connection.execute("DROP TABLE bills; DROP FUNCTION billing_erase, billing_export")
    await connection.execute("DELETE FROM moorline_schema WHERE component = 'billing'")
    assert run("remove_moorline.sql").returncode == 0
    assert await catalog(connection) == []


async def test_a_table_that_is_not_ours_is_not_removed(
    connection: "Connection[Record]", psql: Psql, run: Psql, catalog: Catalog
) -> None:
    await connection.execute("CREATE TABLE appointments (theirs text)")
    assert psql(stdin=script()).returncode == 0
    assert run("remove_moorline.sql").returncode == 0
    assert [line.split()[1] for line in await catalog(connection) if line.startswith("relation")] == ["appointments"]


@pytest.mark.parametrize("name", BACKENDS)
async def test_the_script_of_the_migration_adopts_as_the_runner_does(
    connection: "Connection[Record]", psql: Psql, backend: Backend, name: str
) -> None:
    await connection.execute(backend(name))
    done = psql(stdin=script())
    assert (done.returncode, done.stderr) == (0, "")
    assert await connection.execute(OURS) == "INSERT 0 1"


def test_the_script_and_the_migration_adopt_by_the_same_block() -> None:
    block = re.compile(r"^DO \$adopt\$.*?^\$adopt\$;$", re.DOTALL | re.MULTILINE)
    [script] = block.findall((SQL / "add_session_lock_fields.sql").read_text())
    [migration] = block.findall((SQL / "moorline" / "0001_conversations.sql").read_text())
    assert script == migration
