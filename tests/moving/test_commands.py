"""`moorline export` and `moorline import`, as a person uses them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ..runtime.test_cli import in_a_process, refusal
from ..runtime.test_erasure import OURS, THEIRS, app
from .moves import contents


async def test_a_conversation_goes_through_a_file(talked: str, dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    before = await contents(talked)

    done = await asyncio.to_thread(in_a_process, "export", "--", OURS, str(file), DATABASE_URL=talked)
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith("Exported 1 conversations (")
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text().splitlines()[0])["kind"] == "export"
    done = await asyncio.to_thread(in_a_process, "import", str(file), DATABASE_URL=dsn)
    assert (done.status, done.err) == (0, "3 imported, 0 unchanged, 0 refused.\n")

    after = await contents(dsn)
    assert {name: [row for row in after[name] if OURS in row] for name in after} == {
        name: [row for row in before[name] if OURS in row] for name in before
    }


async def test_everything_goes_through_a_pipe(talked: str, dsn: str) -> None:
    done = await asyncio.to_thread(in_a_process, "export", "--all", DATABASE_URL=talked)
    assert done.status == 0
    again = await asyncio.to_thread(in_a_process, "import", "-", said=done.out, DATABASE_URL=dsn)
    assert again.status == 0
    assert await contents(dsn) == await contents(talked)


async def test_conflicts_are_named_and_the_others_go_on(talked: str, dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    await asyncio.to_thread(in_a_process, "export", "--all", str(file), DATABASE_URL=talked)
    async with app(dsn) as runtime:
        await runtime.run("scheduling hello", {"device_id": OURS})
    done = await asyncio.to_thread(in_a_process, "import", str(file), DATABASE_URL=dsn)
    assert done.status == 1
    assert f"Refused: {OURS}: its devices have other rows here\n" in done.err
    assert done.err.endswith(" 0 unchanged, 1 refused.\n")
    async with app(dsn) as runtime:
        assert await runtime.known(THEIRS)


def test_a_file_that_was_cut_off_is_refused(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text('{"kind": "export", "version": 1')
    done = in_a_process("import", str(file), DATABASE_URL=dsn)
    assert done.status == 1
    assert done.err.splitlines()[-1] == ("moorline: The export was cut off: it has no end. Export again (line 1).")


def test_an_unknown_device_leaves_no_file(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    assert "Nothing is stored" in refusal(in_a_process("export", "nobody", str(file), DATABASE_URL=dsn))
    assert not file.exists()


def test_a_file_that_is_there_is_not_overwritten(talked: str, tmp_path: Path) -> None:
    file = tmp_path / "there.jsonl"
    file.write_text("mine")
    assert "exists already" in refusal(in_a_process("export", "--all", str(file), DATABASE_URL=talked))
    assert file.read_text() == "mine"
