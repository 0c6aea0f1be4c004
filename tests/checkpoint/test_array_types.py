"""asyncpg never asks the server about our types: its own look-up would run what anybody planted in `public`."""

import asyncpg
import pytest

from moorline_checkpoint.array_types import ARRAYS, KnownArrays, described
from moorline_checkpoint.saver import DeviceCheckpointer
from tests.checkpoint.checkpoints import config, put

# The look-up compares an oid with 0, and pg_catalog has no operator for exactly these types.
PLANT = """
CREATE FUNCTION public.planted(oid, integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END';
CREATE OPERATOR public.<> (LEFTARG = oid, RIGHTARG = integer, FUNCTION = public.planted);
"""
TYPES = """
SELECT t.oid, t.typname AS name, t.typelem AS elemtype, e.typname AS elemtype_name
FROM pg_type t JOIN pg_type e ON e.oid = t.typelem
WHERE t.typcategory = 'A' AND t.typelem > 0::oid AND t.typname ~ '^_' AND t.oid < 4000::oid
"""


async def test_nothing_planted_is_run_for_the_arrays_that_are_sent_and_received(
    dsn: str, saver: DeviceCheckpointer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(PLANT)
    stored = await put(saver, config("device"), {"n": 1})
    await saver.aput_writes(stored, [("n", 2)], "task")
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 1}
    assert found.pending_writes == [("task", "n", 2)]


async def test_they_are_what_the_server_says(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    types = {row["oid"]: dict(row) for row in await connection.fetch(TYPES)}
    rows = [described(number) for number in types if number in ARRAYS]
    assert len(rows) == len(ARRAYS)
    for row in rows:
        assert types[row["oid"]].items() <= row.items()


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("ARRAY[1.5]", "[Decimal('1.5')]"),
        ("ARRAY['a'::name, 'b']", "['a', 'b']"),
        ("'[1,3)'::int8range", "<Range [1, 3)>"),
    ],
)
async def test_any_other_type_is_looked_up_as_ever(dsn: str, sql: str, value: str) -> None:
    connection = await asyncpg.connect(dsn, connection_class=KnownArrays)
    try:
        assert repr(await connection.fetchval(f"SELECT {sql}")) == value
        assert await connection.fetchval("SELECT ARRAY[true, NULL]") == [True, None]
    finally:
        await connection.close()
