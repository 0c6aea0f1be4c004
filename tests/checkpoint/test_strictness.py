"""Rows written by somebody else never run code."""

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import ormsgpack
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import MoorlineError
from tests.checkpoint.checkpoints import config, put


class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def hostile_rows(path: Path) -> dict[str, tuple[str, bytes]]:
    """By name, the type and content of rows that create a file if they are trusted."""
    code = f"open({str(path)!r}, 'w').close()"
    calls: dict[str, tuple[int, tuple[object, ...]]] = {
        "one argument": (0, ("builtins", "eval", code)),
        "arguments": (1, ("builtins", "eval", (code,))),
        "keywords": (2, ("subprocess", "check_call", {"args": ["touch", str(path)]})),
        "method": (3, ("pathlib", "Path", str(path), "touch")),
        "pydantic 1": (4, ("subprocess", "check_call", {"args": ["touch", str(path)]})),
        "pydantic 2": (5, ("subprocess", "check_call", {"args": ["touch", str(path)]}, "x")),
    }
    rows = {
        name: ("msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(call))))
        for name, (code, call) in calls.items()
    }
    rows["json"] = (
        "json",
        json.dumps({"lc": 2, "type": "constructor", "id": ["builtins", "eval"], "args": [code]}).encode(),
    )
    rows["pickle"] = ("pickle", pickle.dumps(Touch(path)))
    return rows


@pytest.mark.parametrize("name", [name for name in hostile_rows(Path()) if name != "method"])
def test_the_rows_are_hostile(name: str, tmp_path: Path) -> None:
    """Otherwise the test below would prove nothing. Methods are refused even by LangGraph's lenient default."""
    lenient = JsonPlusSerializer(pickle_fallback=True, allowed_msgpack_modules=True, allowed_json_modules=True)
    lenient.loads_typed(hostile_rows(tmp_path / "touched")[name])

    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE conversation_checkpoints SET type = $1, checkpoint = $2",
        "UPDATE conversation_values SET type = $1, blob = $2",
        "UPDATE conversation_writes SET type = $1, blob = $2",
    ],
)
async def test_a_hostile_row_runs_no_code(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]", change: str, tmp_path: Path
) -> None:
    stored = await put(saver, config("device"), {"c": 1})
    await saver.aput_writes(stored, [("c", 2)], "task")

    for row in hostile_rows(tmp_path / "touched").values():
        await connection.execute(change, *row)
        # What is not returned as plain data is refused: it is not a checkpoint, or its serialisation is not in use.
        with suppress(MoorlineError, NotImplementedError):
            await saver.aget_tuple(stored)
        with suppress(MoorlineError, NotImplementedError):
            _ = [one async for one in saver.alist(stored)]

    assert not (tmp_path / "touched").exists()


async def test_a_body_that_is_no_checkpoint_is_named_as_damaged(
    saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stored = await put(saver, config("device"), own_id="17")
    await connection.execute("UPDATE conversation_checkpoints SET checkpoint = $1", ormsgpack.packb("no checkpoint"))

    with pytest.raises(MoorlineError, match="stored checkpoint 17 is damaged"):
        await saver.aget_tuple(stored)
