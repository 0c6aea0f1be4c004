"""`moorline catalogue`: what a business offers, from a file and into one."""

from __future__ import annotations

from pathlib import Path

from .test_cli import Call, moorline, no_settings, refusal

__all__ = ["moorline", "no_settings"]

SALON = """\
time_zone: Europe/Berlin
services:
  Cut:
    minutes: 30
providers:
  Ana:
    offers:
    - Cut
    hours:
      monday:
      - 09:00-17:00
"""


def test_what_is_exported_is_what_was_imported(moorline: Call, dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "salon.yaml"
    file.write_text(SALON)
    done = moorline("catalogue", "import", str(file), DATABASE_URL=dsn)
    assert (done.status, done.out) == (0, "Offered now: 1 services by 1 providers.\n"), done
    assert moorline("catalogue", "export", DATABASE_URL=dsn).out == SALON


def test_a_file_that_is_wrong_changes_nothing(moorline: Call, dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "salon.yaml"
    file.write_text(SALON)
    moorline("catalogue", "import", str(file), DATABASE_URL=dsn)
    file.write_text(SALON.replace("- Cut", "- Colour"))
    refused = refusal(moorline("catalogue", "import", str(file), DATABASE_URL=dsn))
    assert "there is no service 'Colour'" in refused
    assert "nobody offers it" in refused
    assert moorline("catalogue", "export", DATABASE_URL=dsn).out == SALON
    assert "cannot be read" in refusal(moorline("catalogue", "import", str(tmp_path / "none"), DATABASE_URL=dsn))


def test_tables_that_are_not_there_are_named(moorline: Call, empty_dsn: str) -> None:
    assert "moorline migrate" in refusal(moorline("catalogue", "export", DATABASE_URL=empty_dsn))
