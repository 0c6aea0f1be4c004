"""All commands use one app: a team's own `Moorline`, named on the command line or in the environment."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moorline.app import find_app
from moorline.commands import app as commands
from moorline.errors import ConfigurationError
from moorline_migrations import migrate

from .test_operations import die_in_a_turn

APP = """
from moorline import Agent, Migrations, Moorline
from moorline_agents.transport import ModelReply, rule_client

desk = Agent(
    name="desk", description="bills", instructions="You bill.", migrations=Migrations("billing", package="{name}.sql")
)
told = []
moorline = Moorline(
    agents=[desk],
    client=lambda: rule_client(lambda request: ModelReply(text="The desk is open.")),
    on_recovered=lambda device, reply: told.append((device, reply)),
)
factory = lambda: moorline
"""
BILLS = "CREATE TABLE @schema.bills (device_id text, cents integer);\n"

Command = Callable[..., str]
Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes a package with a module `app` in the current directory, and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}

    def make(source: str = APP) -> str:
        name = f"clinic_{tmp_path.name.replace('-', '_')}"
        (tmp_path / name / "sql").mkdir(parents=True)
        (tmp_path / name / "app.py").write_text(source.replace("{name}", name))
        (tmp_path / name / "sql" / "0001_bills.sql").write_text(BILLS)
        return f"{name}.app"

    yield make
    for name in {*sys.modules} - before:
        del sys.modules[name]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command and returns its standard output."""

    def run(*arguments: str, status: int = 0, said: str | None = None, **environment: str) -> str:
        result = CliRunner().invoke(commands, list(arguments), env=environment, input=said)
        assert result.exit_code == status, result.output + repr(result.exception)
        return result.stdout

    return run


def test_every_command_finds_the_same_agents(package: Package, command: Command, empty_dsn: str) -> None:
    app = f"{package()}:moorline"
    environment = {"DATABASE_URL": empty_dsn}
    assert "Applied billing 0001 bills." in command("migrate", "--app", app, **environment)
    environment["MOORLINE_APP"] = app
    assert command("migrate", **environment) == "Nothing to apply.\n"
    assert "billing is at version 1" in command("migrate", "--status", **environment)
    assert command("chat", "--device", "d1", said="hello\n", **environment) == "[desk] The desk is open.\n"
    assert command("sessions", **environment).startswith("d1\tdesk\t")
    assert command("turns", "d1", **environment) == "1\tdesk\thello\tThe desk is open.\n"
    assert command("cleanup", **environment) == "Cleaned up 0 expired sessions.\n"
    assert command("recover", **environment) == ""
    assert re.fullmatch(r"[0-9a-f]{12}\n", command("tag", "d1", **environment))
    assert command("erase", "d1", **environment) == "Erased.\n"
    assert command("turns", "--dead", **environment) == ""


def test_recover_tells_the_apps_own_hook_and_the_operator(package: Package, command: Command, empty_dsn: str) -> None:
    app = f"{package()}:moorline"
    environment = {"DATABASE_URL": empty_dsn, "MOORLINE_APP": app}
    command("migrate", **environment)
    asyncio.run(die_in_a_turn(empty_dsn))
    assert command("recover", **environment) == "d1\tThe desk is open.\n"
    assert sys.modules[app.partition(":")[0]].told == [("d1", "The desk is open.")]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("{}", r"is not an app; write its module, a colon and its name, as in clinic\.app:moorline"),
        ("{}:", "is not an app"),
        (":moorline", "is not an app"),
        ("{}:morline", "the module has no 'morline', it has moorline"),
        ("{}:factory", "is a function; name a Moorline"),
        ("{}:Agent", "is the class Agent; name a Moorline"),
        ("{}s:moorline", r"There is no module 'clinic_\w+\.apps' in /"),
        ("nowhere_at_all.app:moorline", r"There is no module 'nowhere_at_all' in /"),
    ],
)
def test_a_wrong_name_is_a_sentence(package: Package, dsn: str, name: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        find_app(name.format(package()))


async def test_an_app_that_is_open_already_is_refused(
    package: Package, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    name = f"{package()}:moorline"
    await migrate(dsn, components=find_app(name).components)
    async with find_app(name):
        with pytest.raises(ConfigurationError, match="is already open"):
            find_app(name)
    assert not find_app(name).is_open


def test_what_the_apps_own_module_raises_is_shown_with_its_traceback(package: Package) -> None:
    module = package("import no_such_library\n")
    program = str(Path(sys.executable).with_name("moorline"))
    ended = subprocess.run(
        [program, "sessions", "--app", f"{module}:moorline"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f'{module.partition(".")[0]}/app.py", line 1, in <module>' in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        f"moorline: The app's module '{module}' cannot be imported (ModuleNotFoundError: No module named "
        "'no_such_library'); its traceback is above."
    )


def test_a_wrong_setting_in_the_app_is_the_sentence_that_it_is_everywhere(package: Package) -> None:
    module = package("from moorline import Moorline, Settings\nmoorline = Moorline(Settings(pool_max=0))\n")
    with pytest.raises(ConfigurationError, match=r"^Wrong settings\. MOORLINE_POOL_MAX"):
        find_app(f"{module}:moorline")


def test_without_a_name_it_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere/none")
    assert find_app(None).settings.database_url == "postgresql://nowhere/none"


def test_erasing_goes_by_the_device_that_turns_go_by(command: Command, dsn: str) -> None:
    """A UUID in upper case or without hyphens is the same device; erasing an unknown device fails."""
    environment = {"DATABASE_URL": dsn}
    device = "0f8fad5b-d9cb-469f-a165-70867728950e"
    for spelling in (device.upper(), device.replace("-", "")):
        command("chat", "--device", device, said="hello\n", **environment)
        assert command("turns", spelling, **environment).startswith("1\tconcierge\thello\t")
        assert command("erase", spelling, **environment) == "Erased.\n"
        for unknown in (["erase", spelling], ["turns", device]):
            assert command(*unknown, status=1, **environment) == ""


def test_an_unknown_device_is_said_to_be_unknown(dsn: str) -> None:
    result = CliRunner().invoke(commands, ["erase", "nobody"], env={"DATABASE_URL": dsn})
    assert "No conversation is stored for this device" in str(result.exception)
    result = CliRunner().invoke(commands, ["erase", "no body"], env={"DATABASE_URL": dsn})
    assert "printable characters without spaces" in str(result.exception)
