"""A numbered file never changes once it has landed: a database that has applied it would never get the change."""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest

from moorline_migrations import SHIPPED

PINNED = {
    "moorline/0001_conversations.sql": "274965677970fe213fb218d1bb1210bccb798072b18d7e6060223c2b9152f66c",
    "moorline/0002_bounds.sql": "430d6ef2f0a6706df354406ba1d548ab1750df1d05320a3174b199d3f84b7635",
    "moorline/0003_device_tokens.sql": "882bdd2616a67325b2017a6d4f0d05406238e46ca7c52f846a4179ce3432bc7c",
    "moorline/0004_stops.sql": "708961dc09f80516a8789303371e322c2b910af2208ab42927addc134ddb6929",
    "moorline/0005_people.sql": "8518925aec4ce01d2ce7af16c48a48a47f5adfd4f15b79180dccaaae229578c3",
    "moorline/0006_sessions.sql": "e97bb03789084c3e1ebd3010c5d4fa6ec8a2153c4bfa9d23c3b08ddbb7c00be5",
    "moorline/0007_earlier_marks.sql": "f3e9c423259469c602d9d40387ae2b429e98f0d9aeff0043bd9a92f1c032b149",
    "moorline/0008_memory.sql": "65b793f7581f758ea21a8d3cfda2d23a561aa5447f31d7bc197aabcd4c095285",
    "moorline/0009_files.sql": "33c8133fc6cecc8b8c4946c09328998dbf35d32f887917dbeb9387b3872a590b",
    "moorline/0010_daily_totals.sql": "4e2ad4931190037a82bf43755df326175186c971fb3d9bda34fa069352ed73af",
    "moorline/0011_order_of_recovery.sql": "ad1ea68b8ce7126817ebe3e2e33d5de0d65cf4286fbb7b12933e36902f312af8",
    "moorline/0012_rewinding_to_an_answer.sql": "19a760536106566bb6f239175b48b9436f6608716496c3805ea9ff89cda3ad77",
    "moorline/0013_words_and_files.sql": "fd1370f22ad2327031aa22ebb581bf3b5e3a80fae90896c514266d2a78ae5484",
    "scheduling/0001_appointments.sql": "12a48e5184aee44c1511be5a2ba2f40e88820c6c179bcb3d3633a9ce90daf76c",
    "scheduling/0002_places_and_nights.sql": "1c462b508c3a427f40b9c6e1614b2d3e66f335809b5a00ba1385214c72171c29",
    "scheduling/0003_erased_again.sql": "3b9d04c47152b30162fc56b26cb04e48870a73865e8e24d0342f706654384818",
    "scheduling/0004_businesses.sql": "6a8bc58168fff2b6f24e611723a30f6d05ff1745e92cf7ce2dc741ce66032a4e",
}
"""The SHA-256 of each numbered file, by the names of its component and the file."""


def numbered(component: str, folder: Traversable) -> Iterator[tuple[str, str]]:
    """The numbered files of a component with their hashes."""
    for file in folder.iterdir():
        if file.name[:4].isdecimal():
            yield f"{component}/{file.name}", sha256(file.read_bytes()).hexdigest()


def complaints(pinned: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the files, and what to do about it."""
    for name in sorted({*pinned, *found}):
        if name not in found:
            yield f"{name} is gone: databases have applied it. Put it back."
        elif name not in pinned:
            yield f"{name} is new: when it is finished, pin it here with {found[name]}; from then on it cannot change."
        elif found[name] != pinned[name]:
            yield (
                f"{name} has changed since it landed, and databases that have applied it would never get the change. "
                f"Put it back as it was, and make the change in the next numbered file of its folder and in schema.sql."
            )


def test_landed_files_have_not_changed() -> None:
    found = dict(pair for each in SHIPPED for pair in numbered(each.component, files(each.package)))
    assert "\n".join(complaints(PINNED, found)) == ""


def changed(file: Path) -> None:
    file.write_text("SELECT 2;")


def removed(file: Path) -> None:
    file.unlink()


def added(file: Path) -> None:
    file.with_name("0002_more.sql").touch()


def described(file: Path) -> None:
    file.with_name("schema.sql").write_text("SELECT 2;")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed, ["has changed since it landed", "next numbered file"]),
        (removed, ["is gone", "Put it back"]),
        (added, ["billing/0002_more.sql is new", "pin it here"]),
        (described, []),
    ],
)
def test_a_complaint_says_what_to_do(tmp_path: Path, change: Callable[[Path], None], told: list[str]) -> None:
    file = tmp_path / "0001_bills.sql"
    file.write_text("SELECT 1;")
    pinned = dict(numbered("billing", tmp_path))
    change(file)
    said = "".join(complaints(pinned, dict(numbered("billing", tmp_path))))
    assert bool(said) == bool(told)
    assert all(words in said for words in told)
