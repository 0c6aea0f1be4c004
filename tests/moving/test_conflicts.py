"""What is in the database already is never overwritten: conflicts are named, and the others go on."""

from __future__ import annotations

from ..runtime.test_erasure import OURS, THEIRS, app
from .moves import contents, execute, exported, imported, lines_of, results

SERVICE = "INSERT INTO appointment_services (service_id, name, minutes) OVERRIDING SYSTEM VALUE VALUES ($1, $2, 15)"


async def test_a_device_that_has_talked_here_keeps_what_it_has(talked: str, dsn: str) -> None:
    file = await exported(talked)
    async with app(dsn) as runtime:
        await runtime.run("scheduling hello", {"device_id": OURS})
    before = await contents(dsn)

    told = await imported(dsn, file)

    assert results(told) == {OURS: "refused", THEIRS: "imported"}
    assert [each.why for each in told if each.what == OURS] == ["its devices have other rows here"]
    after = await contents(dsn)
    assert {name: [row for row in after[name] if OURS in row] for name in after} == {
        name: [row for row in before[name] if OURS in row] for name in before
    }


async def test_a_conversation_that_has_gone_on_is_not_set_back(talked: str) -> None:
    file = await exported(talked, OURS)
    async with app(talked) as runtime:
        await runtime.run("scheduling hello", {"device_id": OURS})
    before = await contents(talked)

    assert results(await imported(talked, file)) == {OURS: "refused"}
    assert await contents(talked) == before


async def test_a_time_that_somebody_else_has_booked_refuses_the_conversation(talked: str) -> None:
    file = await exported(talked, OURS)
    async with app(talked) as runtime:
        await runtime.erase(OURS, scope="person")
    await execute(
        talked,
        "UPDATE appointments a SET provider_id = o.provider_id, during = o.during, occupies = o.occupies"
        " FROM appointments o WHERE a.device_id = $1 AND o.device_id = ''",
        THEIRS,
    )

    *_, told = await imported(talked, file)

    assert (told.what, told.result) == (OURS, "refused")
    assert "appointments_one_at_a_time" in told.why


async def test_a_catalogue_that_differs_refuses_those_who_refer_to_it(talked: str, dsn: str) -> None:
    file = await exported(talked)
    booked = {line["row"]["service_id"] for line in lines_of(file) if line.get("table") == "appointments"}
    (service,) = booked
    await execute(dsn, SERVICE, int(service), "Something else")

    told = await imported(dsn, file)

    refused = {each.what for each in told if each.result == "refused"}
    assert {f"appointment_services {service}", OURS, THEIRS} <= refused
    assert "appointment_providers 1" not in refused
    assert (await contents(dsn))["conversation_turns"] == []
    # Offers of that service are refused as well: they would offer something else.
    assert {each.split()[0] for each in refused - {OURS, THEIRS}} == {"appointment_services", "appointment_offers"}


async def test_one_conversation_brings_only_the_shared_rows_that_it_refers_to(talked: str, dsn: str) -> None:
    file = await exported(talked, OURS)
    shared = [line["table"] for line in lines_of(file) if line["kind"] == "row" and "device_id" not in line["row"]]
    assert shared == ["appointment_services", "appointment_providers"]
    assert results(await imported(dsn, file)) == {OURS: "imported"}


async def test_numbers_go_on_behind_those_that_came(talked: str, dsn: str) -> None:
    await imported(dsn, await exported(talked))
    await execute(dsn, "INSERT INTO appointment_services (name, minutes) VALUES ('New', 15)")
