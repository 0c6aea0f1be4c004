"""Export and import go by the catalogue: components of a team's own, tables that a backend had, linked devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from moorline import Moorline, Settings
from moorline.errors import ConfigurationError
from moorline_agents.transport import rule_client
from moorline_migrations import CORE, SHIPPED, Migrations, migrate

from ..migrations.packages import BILLS, MakePackage, make_package
from ..runtime.conftest import agent, counting
from ..runtime.test_erasure import OURS
from .moves import contents, execute, exported, imported, lines_of, results

__all__ = ["make_package"]

BACKENDS = Path(__file__).parents[1] / "migrations" / "backends"
ONE, NEW = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 9))

WEIGHTS = """\
-- Weights of a shipper.
-- erase: weights_erase

CREATE TABLE @schema.scales (scale text PRIMARY KEY);

CREATE TABLE @schema.parcels (
    parcel_no bigint GENERATED ALWAYS AS IDENTITY,
    device_id text REFERENCES @schema.conversation_states,
    scale     text REFERENCES @schema.scales,
    grams     numeric(12, 3) NOT NULL,
    pounds    double precision GENERATED ALWAYS AS (grams::double precision / 453.59237) STORED,
    exact     double precision,
    label     bytea,
    times     timestamptz[],
    data      jsonb,
    PRIMARY KEY (device_id, parcel_no)
);

CREATE FUNCTION @schema.weights_erase(device text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM @schema.parcels p WHERE p.device_id = device;
END
$$;
"""


def runtime(dsn: str) -> Moorline:
    return Moorline(Settings(database_url=dsn), agents=[agent("hair")], client=lambda: rule_client(counting))


async def test_a_component_that_the_app_does_not_know_is_named(talked: str, make_package: MakePackage) -> None:
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS}))
    await migrate(talked, components=(*SHIPPED, billing))
    with pytest.raises(ConfigurationError, match="tables of 'billing', which this app does not know"):
        await exported(talked, OURS)
    await execute(talked, "INSERT INTO bills VALUES ($1, 1, 100)", OURS)
    assert [line["row"]["cents"] for line in lines_of(await exported(talked, components=(*SHIPPED, billing)))
            if line.get("table") == "bills"] == ["100"]  # fmt: skip


async def test_values_of_every_kind_come_back_exactly(talked: str, dsn: str, make_package: MakePackage) -> None:
    components = (*SHIPPED, Migrations("weights", package=make_package("weights", **{"0001_weights": WEIGHTS})))
    for each in (talked, dsn):
        await migrate(each, components=components)
    await execute(talked, "INSERT INTO scales VALUES ('fine'), ('coarse')")
    await execute(
        talked,
        "INSERT INTO parcels (device_id, scale, grams, exact, label, times, data) VALUES"
        " ($1, 'fine', 0.100, 0.1::float8 + 0.2::float8, '\\x00ff5c',"
        " ARRAY['infinity', '2026-03-01 12:00:00.000001+02', NULL]::timestamptz[], 'null'),"
        " ($1, 'fine', 1e8, 'NaN', '', '{}', '{\"a\": 1.000, \"b\": \"\\u20ac\"}'),"
        " ($1, NULL, 1, NULL, NULL, NULL, NULL)",
        OURS,
    )
    before = await contents(talked)

    await imported(dsn, await exported(talked, components=components), components=components)

    assert await contents(dsn) == before
    await execute(dsn, "INSERT INTO parcels (device_id, grams) VALUES ($1, 1)", OURS)


@pytest.mark.parametrize("backend", ["uuid_key", "uuid_device", "repeated_key"])
async def test_a_table_that_a_backend_had_before_gets_its_rows_back(empty_dsn: str, backend: str) -> None:
    await execute(empty_dsn, (BACKENDS / f"{backend}.sql").read_text())
    await migrate(empty_dsn, components=(CORE,))
    device = "patient-3" if backend == "repeated_key" else ONE
    async with runtime(empty_dsn) as moorline:
        await moorline.run("hair hello", {"device_id": device})
    before = await contents(empty_dsn)
    file = await exported(empty_dsn, device, components=(CORE,))
    async with runtime(empty_dsn) as moorline:
        await moorline.erase(device)

    assert results(await imported(empty_dsn, file, components=(CORE,))) == {device: "imported"}

    after = await contents(empty_dsn)
    # What refers to the backend's row is the backend's.
    assert {name: after[name] for name in after if name != "conversation_notes"} == {
        name: before[name] for name in before if name != "conversation_notes"
    }
    async with runtime(empty_dsn) as moorline:
        assert await moorline.run("again", {"device_id": device}) == "hair 2: again"


async def test_a_conversation_leaves_a_backends_table_for_one_of_moorlines(empty_dsn: str, dsn: str) -> None:
    await execute(empty_dsn, (BACKENDS / "uuid_key.sql").read_text())
    await migrate(empty_dsn, components=(CORE,))
    async with runtime(empty_dsn) as moorline:
        await moorline.run("hair hello", {"device_id": NEW})
    file = await exported(empty_dsn, NEW, components=(CORE,))

    assert results(await imported(dsn, file)) == {NEW: "imported"}

    async with runtime(dsn) as moorline:
        assert await moorline.run("again", {"device_id": NEW}) == "hair 2: again"


async def test_devices_that_share_a_conversation_move_together_or_not_at_all(dsn: str, empty_dsn: str) -> None:
    async with runtime(dsn) as moorline:
        for device in ("a", "b", "c"):
            await moorline.run("hair hello", {"device_id": device})
    await execute(dsn, "UPDATE conversation_states SET leads_to = 'a' WHERE device_id = 'b'")
    await execute(
        dsn,
        "INSERT INTO conversation_messages (device_id, message_id, arrival, text, status, joins)"
        " VALUES ('c', 'm', 9, '', 'waiting', 'a')",
    )
    everything, one = await exported(dsn), await exported(dsn, "b")
    starts = [line["devices"] for line in lines_of(everything) if line["kind"] == "conversation"]
    assert starts == [["a", "b"], ["c"]]
    assert not any(line.get("row", {}).get("joins") for line in lines_of(everything))
    assert [line["devices"] for line in lines_of(one) if line["kind"] == "conversation"] == [["a", "b"]]

    await migrate(empty_dsn, components=SHIPPED)
    async with runtime(empty_dsn) as moorline:  # whose conversation "b" must not get
        await moorline.run("hair secret", {"device_id": "a"})
    assert results(await imported(empty_dsn, everything)) == {"a, b": "refused", "c": "imported"}


async def test_linked_devices_share_their_conversation_after_a_round_trip(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await moorline.run("hair one", {"device_id": "laptop"})
        await moorline.run("hair own", {"device_id": "phone"})
        await moorline.link("phone", await moorline.link_code("laptop"))
        said = await moorline.run("two", {"device_id": "phone", "message_id": "m"})
        shared, own = await moorline.transcript("laptop"), await moorline.transcript("phone", own=True)
        linked = await moorline.devices("phone")
        file = await exported(dsn, "phone")
        assert await moorline.erase("phone", scope="person")
        assert await moorline.transcript("laptop") == []

    assert results(await imported(dsn, file)) == {"laptop, phone": "imported"}

    async with runtime(dsn) as moorline:
        assert await moorline.transcript("phone") == shared
        assert await moorline.transcript("phone", own=True) == own
        assert await moorline.devices("laptop") == linked
        again = await moorline.run("two", {"device_id": "phone", "message_id": "m"})
        assert (again, again.replayed) == (said, True)
        assert await moorline.run("three", {"device_id": "laptop"}) == "hair 3: three"


async def test_nobody_gets_into_a_conversation_that_is_imported(dsn: str, empty_dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await moorline.run("hair hello", {"device_id": "a"})
    await migrate(empty_dsn, components=SHIPPED)
    await execute(empty_dsn, "INSERT INTO conversation_states (device_id, leads_to) VALUES ('stranger', 'a')")
    assert results(await imported(empty_dsn, await exported(dsn))) == {"a": "refused"}
