"""An export that is cut off, damaged or of somebody else's making is refused, and leaves nothing half done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from moorline.errors import BadExport, ConfigurationError, MoorlineError, SchemaMismatch
from moorline.moving import lines as format_of
from moorline_migrations import CORE, migrate

from ..conftest import fresh_database
from ..runtime.test_erasure import OURS, THEIRS
from .moves import contents, execute, exported, file_of, imported, lines_of, results

Lines = list[dict[str, Any]]


def opening(**changes: Any) -> Lines:
    line = {"kind": "export", "version": 1, "components": {"moorline": 1}, "exported_at": "2026-01-01T00:00:00Z"}
    return [line | changes]


def turn(device: str = "d1", **changes: Any) -> dict[str, Any]:
    row = {
        "device_id": device, "turn_no": "1", "claim_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "fence": "1",
        "agent": "hair", "reply": "hello", "status": "done", "attempts": "1", "started_at": "2026-01-01 00:00:00+00",
    }  # fmt: skip
    return {"kind": "row", "table": "conversation_turns", "row": row | changes}


def conversation(*rows: dict[str, Any], device: str = "d1") -> Lines:
    start = {"kind": "conversation", "devices": [device]}
    return [start, *rows, {"kind": "conversation_end", "rows": len(rows)}]


def closing(conversations: int = 1) -> Lines:
    return [{"kind": "export_end", "conversations": conversations}]


@pytest.fixture(scope="module")
def untouched(server_dsn: str, template: str) -> Iterator[str]:
    """A database that stays empty."""
    with fresh_database(server_dsn, template) as fresh:
        yield fresh


async def nothing_comes_of(dsn: str, file: bytes, match: str) -> None:
    before = await contents(dsn, left_out=True)
    with pytest.raises(BadExport, match=match):
        await imported(dsn, file)
    assert await contents(dsn, left_out=True) == before


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (opening(version=2, new="field"), "of version 2, and this code reads up to 1"),
        (opening(kind="conversation"), "no export of Moorline's"),
        (opening(extra=1), "damaged"),
        (opening() + conversation(turn())[:-1], "cut off"),
        ([*opening(), *conversation(turn())[:-1], {"kind": "conversation_end", "rows": 2}], "as many rows"),
        (opening() + conversation(turn("d2")) + closing(), "none of the devices"),
        ([*opening(), turn(), *closing(0)], "belongs to a conversation"),
        (opening() + conversation({"kind": "row", "table": "moorline_keys", "row": {"name": "log"}}), "does not move"),
        (opening() + conversation({"kind": "row", "table": "pg_authid", "row": {}}), "does not move"),
        (opening() + conversation({"kind": "row", "table": 'x"; DROP TABLE y; --', "row": {}}), "does not move"),
        (opening() + conversation({"kind": "row", "table": "conversation_turns", "row": {"turn_no": 1}}), "damaged"),
        (
            opening()
            + conversation(
                {"kind": "row", "table": "conversation_states", "row": {"device_id": "d1", "leads_to": "victim"}}
            ),
            "leads out",
        ),
        (
            opening()
            + conversation(
                {"kind": "row", "table": "conversation_messages", "row": {"device_id": "d1", "joins": "victim"}}
            ),
            "leads out",
        ),
        (opening() + conversation({"kind": "run", "sql": "DROP TABLE conversation_turns"}), "damaged"),
    ],
)
async def test_nothing_comes_of_a_file_that_is_wrong(untouched: str, lines: Lines, match: str) -> None:
    await nothing_comes_of(untouched, file_of(lines), match)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], "cut off"),
        (closing(2), "as many conversations"),
        (closing() + closing(), "follows the end"),
        (conversation(turn("d2"), device="d2")[:2], "cut off"),
        (conversation(turn("d2"), device="d2")[:2] + conversation(turn("d3"), device="d3"), "cannot stand here"),
    ],
)
async def test_the_conversations_before_the_damage_stay(dsn: str, lines: Lines, match: str) -> None:
    with pytest.raises(BadExport, match=match):
        await imported(dsn, file_of(opening() + conversation(turn()) + lines))
    (row,) = (await contents(dsn))["conversation_turns"]
    assert row.startswith("(d1,1,")


@pytest.mark.parametrize(
    ("file", "match"),
    [
        (b"", "cut off"),
        (b"\n", "no export"),
        (b"PK\x03\x04\xff\xfe\n", "no export"),
        (b'{"kind": "export", "version": NaN}\n', "no export"),
        (b"[" * 100_000 + b"\n", "no export"),
        (file_of(opening())[:-1], "cut off"),
        (file_of(opening()) + b'{"kind": "row"\n', "damaged"),
        (file_of(opening()) + b'{"kind": "row", "table": "x", "row": {"a": "\\ud800"}}\n', "damaged"),
        (file_of(opening()) + b'{"kind": "row", "table": "x", "row": {"a": "\xff"}}\n', "damaged"),
    ],
)
async def test_what_is_no_json_of_ours_is_refused(untouched: str, file: bytes, match: str) -> None:
    await nothing_comes_of(untouched, file, match)


async def test_a_line_without_end_is_not_read_to_its_end(untouched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_of, "MAX_LINE", 1000)
    await nothing_comes_of(
        untouched, file_of(opening()) + b'{"kind": "row", "table": "' + b"x" * 2000, "longer than 1000"
    )


async def test_wherever_an_export_is_cut_only_whole_conversations_come_in(talked: str, dsn: str) -> None:
    file, whole = await exported(talked), await contents(talked)
    assert len(file) > 10_000
    seen = set()
    for cut in (*range(1, len(file), len(file) // 24), len(file) - 1):
        with pytest.raises(BadExport, match="cut off"):
            await imported(dsn, file[:cut])
        now = await contents(dsn)
        for device in (OURS, THEIRS):
            of_device = {name: [row for row in now[name] if device in row] for name in now}
            had = {name: [row for row in whole[name] if device in row] for name in whole}
            assert of_device in (had, {name: [] for name in now})
            seen.add((device, of_device == had))
    assert (OURS, False) in seen
    assert (OURS, True) in seen


async def test_what_newer_code_has_written_is_refused(talked: str, dsn: str) -> None:
    first, *rest = lines_of(await exported(talked))
    first["components"]["moorline"] += 1
    with pytest.raises(SchemaMismatch, match="use the code of that version"):
        await imported(dsn, file_of([first, *rest]))


async def test_a_component_that_is_missing_here_is_named(talked: str, empty_dsn: str) -> None:
    await migrate(empty_dsn, components=(CORE,))
    with pytest.raises(ConfigurationError, match="the component 'scheduling', which this schema lacks"):
        await imported(empty_dsn, await exported(talked))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (turn(turn_no="1; DROP TABLE conversation_turns"), "invalid input syntax for type bigint"),
        (turn(reply="a\x00b"), "invalid byte sequence"),
        (turn(agent="x" * 51), "too long"),
        (turn(status="strange"), "breaks conversation_turns_status_check"),
        (turn(reply=None), "breaks"),
        (turn(**{'reply") VALUES (1); --': "x"}), "has no column"),
    ],
)
async def test_rows_that_the_database_does_not_take_refuse_their_conversation_only(
    dsn: str, row: dict[str, Any], why: str
) -> None:
    others = conversation(turn("d2"), device="d2")
    told = await imported(dsn, file_of(opening() + conversation(turn(), row | {}) + others + closing(2)))
    assert results(told) == {"d1": "refused", "d2": "imported"}
    assert why in told[0].why
    now = await contents(dsn)
    assert len(now["conversation_turns"]) == 1


@pytest.mark.parametrize("device", ["", "a b", "x" * 129, "a\nb", "0F8FAD5BD9CB469FA16570867728950E"])
async def test_a_device_id_that_moorline_would_not_accept_is_refused(untouched: str, device: str) -> None:
    told = await imported(untouched, file_of(opening() + conversation(turn(device), device=device) + closing()))
    assert [each.result for each in told] == ["refused"]
    assert "device ID" in told[0].why
    assert (await contents(untouched))["conversation_turns"] == []


def mutated(file: bytes, chance: random.Random) -> bytes:
    """The file with some of its bytes or lines changed."""
    rows = file.splitlines(keepends=True)
    place = chance.randrange(len(rows))
    match chance.randrange(5):
        case 0:
            del rows[place]
        case 1:
            rows.insert(place, rows[chance.randrange(len(rows))])
        case 2:
            other = chance.randrange(len(rows))
            rows[place], rows[other] = rows[other], rows[place]
        case 3:
            at = chance.randrange(len(rows[place]))
            rows[place] = rows[place][:at] + bytes([chance.randrange(256)]) + rows[place][at + 1 :]
        case _:
            rows[place] = rows[place].replace(b'"1"', b'"' + chance.choice([b"-1", b"9e99", b"x", b"\\u0000"]) + b'"')
    return b"".join(rows)


async def import_mutations(talked: str, dsn: str, seeds: range) -> None:
    file, accepted = await exported(talked), 0
    for seed in seeds:
        chance = random.Random(seed)  # noqa: S311
        with suppress(MoorlineError):
            await imported(dsn, mutated(file, chance))
            accepted += 1
        await execute(dsn, "SELECT moorline_erase_everywhere(d) FROM unnest($1::text[]) d", [OURS, THEIRS])
    assert 0 < accepted < len(seeds)


async def test_whatever_is_changed_in_a_file_only_our_errors_come_of_it(talked: str, dsn: str) -> None:
    await import_mutations(talked, dsn, range(40))


@pytest.mark.laboratory
async def test_whatever_is_changed_in_a_file_only_our_errors_come_of_it_often(talked: str, dsn: str) -> None:
    await import_mutations(talked, dsn, range(40, 1500))
