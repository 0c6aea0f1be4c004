"""What is distributed: the wheel that pip makes of the project."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "moorline": ROOT / "runtime",
    "moorline_agents": ROOT / "agents",
    "moorline_checkpoint": ROOT / "checkpoint",
    "moorline_migrations": ROOT / "migrations",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_it_holds_every_file_of_the_four_packages_and_nothing_else(unpacked: Path) -> None:
    ours = {
        file.relative_to(source)
        for name, source in PACKAGES.items()
        for file in (source / name).rglob("*")
        if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in file.parts)
    }
    held = {file.relative_to(unpacked) for file in unpacked.rglob("*") if file.is_file()}
    assert {file for file in held if not file.parts[0].endswith(".dist-info")} == ours
    assert {Path(name, "py.typed") for name in PACKAGES} <= held
    assert any(file.suffix == ".sql" for file in held)


def test_it_brings_the_command_and_the_extras(unpacked: Path) -> None:
    (info,) = unpacked.glob("*.dist-info")
    distribution = PathDistribution(info)
    assert [(entry.name, entry.value) for entry in distribution.entry_points] == [("moorline", "moorline.cli:main")]
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) == {
        *("cli", "embedded", "graph", "http", "mcp", "notebooks", "redis", "telemetry")
    }


def test_installed_it_finds_its_sql(unpacked: Path) -> None:
    program = "import moorline_migrations as m; print(m.__file__, sum(len(each.versions) for each in m.SHIPPED))"
    shown = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    file, versions = shown.stdout.split()
    assert Path(file).is_relative_to(unpacked)
    assert int(versions) == len(list((ROOT / "migrations/moorline_migrations/sql").glob("*/0*.sql")))
