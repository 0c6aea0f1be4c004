"""Exported, erased and imported again, a conversation is what it was, in every table of every component."""

from __future__ import annotations

from pathlib import Path

from moorline.moving.exporting import Counts, export
from moorline.moving.tables import DEVICE, LEFT_OUT, read_layout
from moorline_checkpoint.database import Database
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import SHIPPED

from ..runtime.test_erasure import OURS, THEIRS, app, canary
from .moves import contents, execute, exported, imported, lines_of, results


async def erase(dsn: str, *devices: str) -> None:
    async with app(dsn) as runtime:
        for device in devices:
            assert await runtime.erase(device, scope="person")


def of_device(table: list[str], device: str) -> bool:
    return any(device in row for row in table)


async def test_every_table_is_exported_and_erased_or_left_out_with_a_reason(talked: str) -> None:
    before = await contents(talked, left_out=True)
    async with DeviceCheckpointer.from_conn_string(talked) as saver, saver.database.connection() as connection:
        layout = await read_layout(connection, schema="public", components=SHIPPED)
    assert before.keys() - layout.tables.keys() == LEFT_OUT.keys(), "neither moved nor listed as left out"
    told = (Path(__file__).parents[2] / "docs" / "moving.md").read_text()
    assert all(f"| `{name}` | {reason} |" in told for name, reason in LEFT_OUT.items())
    assert {table.name for table in layout.shared} == {
        "appointment_services", "appointment_providers", "appointment_offers", "appointment_hours",
        "appointment_closures",
    }  # fmt: skip
    held = {table.name for table in layout.of_devices}
    assert {name for name in before if of_device(before[name], OURS)} == held, "this conversation has no rows there"
    assert {line["table"] for line in lines_of(await exported(talked, OURS)) if DEVICE in line.get("row", ())} == held

    await erase(talked, OURS)

    after = await contents(talked, left_out=True)
    assert {name for name in after if of_device(after[name], OURS)} == set()


async def test_after_a_round_trip_every_table_is_as_before(talked: str) -> None:
    before = await contents(talked)
    file = await exported(talked, OURS)

    await erase(talked, OURS)
    assert await contents(talked) != before
    assert results(await imported(talked, file)) == {OURS: "imported"}

    assert await contents(talked) == before
    await erase(talked, OURS)  # what the first erasure has left is not in the way


async def test_all_conversations_move_into_an_empty_database(talked: str, dsn: str) -> None:
    before = await contents(talked)

    told = await imported(dsn, await exported(talked))

    assert results(told) == {OURS: "imported", THEIRS: "imported"}
    assert await contents(dsn) == before


async def test_an_import_can_be_repeated(talked: str, dsn: str) -> None:
    file = await exported(talked)
    await imported(dsn, file)
    before = await contents(dsn, left_out=True)

    told = await imported(dsn, file)

    assert {each.result for each in told} == {"unchanged"}
    assert await contents(dsn, left_out=True) == before


async def test_the_conversation_goes_on(talked: str) -> None:
    async with app(talked) as runtime:
        first = await runtime.transcript(OURS)
        lock = await runtime.session(OURS)
    file = await exported(talked, OURS)
    await erase(talked, OURS)
    await imported(talked, file)

    async with app(talked) as runtime:
        assert await runtime.transcript(OURS) == first
        assert await runtime.session(OURS) == lock
        assert lock is not None
        assert lock.active_agent == "scheduling"
        again = await runtime.run("anything", {"device_id": OURS, "message_id": canary("identity")})
        assert again.replayed
        assert again == first[0].record.reply
        told = await runtime.run("scheduling next", {"device_id": OURS})
        assert (told.agent, told.turn_no) == ("scheduling", len(first) + 1)


async def test_an_export_is_of_one_moment(talked: str) -> None:
    whole = lines_of(await exported(talked))
    database = Database(talked)
    lines = export(database, components=SHIPPED, device_id=None, counts=Counts())
    begun = [await anext(lines)]
    await execute(talked, "DELETE FROM conversation_turns")
    begun += [line async for line in lines]
    await database.close()
    assert lines_of(b"".join(begun))[1:] == whole[1:]
