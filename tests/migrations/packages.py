"""Packages of .sql files, like a team's own, created in the test's folder."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

MakePackage = Callable[..., str]

BILLS = """\
-- Bills of a clinic.
-- erase: billing_erase
-- export: billing_export

CREATE TABLE @schema.bills (
    device_id text,
    bill_no   integer,
    cents     integer NOT NULL,
    PRIMARY KEY (device_id, bill_no)
);

CREATE FUNCTION @schema.billing_erase(device text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM @schema.bills b WHERE b.device_id = device;
END
$$;

CREATE FUNCTION @schema.billing_export(device text) RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN (SELECT jsonb_agg(b.cents ORDER BY b.bill_no) FROM @schema.bills b WHERE b.device_id = device);
END
$$;
"""


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    """Creates the package `clinic_….NAME.sql` from the given files (`0001_bills` and so on) and returns its name."""
    root = f"clinic_{uuid4().hex}"
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, **files: str) -> str:
        folder = tmp_path / root / name / "sql"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        for file, sql in files.items():
            (folder / f"{file}.sql").write_text(sql)
        return f"{root}.{name}.sql"

    return make
