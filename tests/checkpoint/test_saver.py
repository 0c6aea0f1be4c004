"""The checkpointer beyond the conformance suite: what it stores, lists and refuses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from moorline_checkpoint import saver as saver_module
from moorline_checkpoint.errors import InvalidMetadata
from moorline_checkpoint.saver import DeviceCheckpointer
from tests.checkpoint.checkpoints import config, put
from tests.checkpoint.conftest import Watched

NUL = "a\x00b\x1ac"


async def test_nul_characters_are_stored_and_given_back_wherever_they_are(saver: DeviceCheckpointer) -> None:
    parent = await put(saver, config(NUL, ns=NUL), {NUL: NUL, "plain": [NUL, {NUL: 1}]}, metadata={NUL: {NUL: [NUL]}})
    parent["metadata"] = {"tenant": NUL}
    stored = await put(saver, parent, {"": NUL}, own_id=f"9{NUL}")
    await saver.aput_writes(stored, [(NUL, NUL), ("plain", {NUL: NUL})], f"task{NUL}", f"path{NUL}")

    found = await saver.aget_tuple(config(NUL, ns=NUL))
    assert found is not None
    assert found.config == stored == config(NUL, f"9{NUL}", ns=NUL)
    assert found.parent_config == config(NUL, parent["configurable"]["checkpoint_id"], ns=NUL)
    assert found.checkpoint["channel_values"] == {"": NUL}
    assert found.metadata.get("tenant") == NUL
    assert found.pending_writes == [(f"task{NUL}", NUL, NUL), (f"task{NUL}", "plain", {NUL: NUL})]

    older = await saver.aget_tuple(found.parent_config)
    assert older is not None
    assert older.checkpoint["channel_values"] == {NUL: NUL, "plain": [NUL, {NUL: 1}]}
    listed = saver.alist(config(NUL, ns=NUL), filter={NUL: {NUL: [NUL]}})
    assert [one.config async for one in listed] == [older.config]


async def test_the_metadata_of_a_run_is_kept_by_langgraphs_rules(saver: DeviceCheckpointer) -> None:
    run = config("device")
    run["configurable"] |= {"user": "ada", "__secret": "x", "client": object(), "langgraph_node": "a"}
    run["metadata"] = {"tenant": "north", "user": "other", "writes": "x"}
    stored = await put(saver, run, metadata={"run_id": "run-1", "writes": {"a": 1}})

    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.metadata == {
        "source": "loop", "step": 0, "parents": {}, "run_id": "run-1", "tenant": "north", "user": "other",
    }  # fmt: skip


async def test_pending_writes_come_in_the_order_in_which_a_run_applies_them(saver: DeviceCheckpointer) -> None:
    stored = await put(saver, config("device"))
    await saver.aput_writes(stored, [("c", 5), ("c", 6)], "task-a", "~2")
    await saver.aput_writes(stored, [("c", 3), ("c", 4)], "task-c", "~1")
    await saver.aput_writes(stored, [("c", 1)], "task-b", "~1")
    await saver.aput_writes(stored, [("c", 0)], "task-z")
    await saver.aput_writes(stored, [("c", 2)], "task-bb", "~1")

    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.pending_writes is not None
    assert [value for _, _, value in found.pending_writes] == [0, 1, 2, 3, 4, 5, 6]


async def test_special_writes_replace_and_others_stay(saver: DeviceCheckpointer) -> None:
    stored = await put(saver, config("device"))
    await saver.aput_writes(stored, [("c", "first"), (ERROR, "first")], "task")
    await saver.aput_writes(stored, [("c", "second"), (ERROR, "second")], "task")
    await saver.aput_writes(stored, [(INTERRUPT, "first"), (INTERRUPT, "second")], "task")
    await saver.aput_writes(stored, [(INTERRUPT, "third")], "task")

    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.pending_writes == [("task", INTERRUPT, "third"), ("task", ERROR, "first"), ("task", "c", "first")]


async def test_writes_may_arrive_before_their_checkpoint(saver: DeviceCheckpointer) -> None:
    await saver.aput_writes(config("device", "1"), [("c", "early")], "task")
    assert await saver.aget_tuple(config("device", "1")) is None

    stored = await put(saver, config("device"), own_id="1")
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.pending_writes == [("task", "c", "early")]


async def test_a_checkpoint_put_on_top_of_itself_has_no_parent(saver: DeviceCheckpointer) -> None:
    stored = await put(saver, config("device", "1"), own_id="1")

    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.parent_config is None
    assert await saver.aget_delta_channel_history(config=stored, channels=["c"]) == {"c": {"writes": []}}


async def test_any_thread_id_will_do(saver: DeviceCheckpointer) -> None:
    thread_ids: list[Any] = ["", " ", "a|b:c/d", "x" * 500, "'; --", 7]
    for thread_id in thread_ids:
        stored = await put(saver, config(thread_id), {"of": thread_id})
        assert stored["configurable"]["thread_id"] == thread_id
    for thread_id in thread_ids:
        found = await saver.aget_tuple(config(thread_id))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"of": thread_id}


async def test_a_listing_goes_through_pages_and_holds_no_connection(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "PAGE", 3)
    async with DeviceCheckpointer.from_conn_string(dsn, pool_size=1) as saver:
        for thread in ("a", "b"):
            parent = config(thread)
            for step in range(7):
                parent = await put(saver, parent, {"n": step}, own_id=f"{step}", metadata={"parity": step % 2})

        async def listed(thread: str | None, **kwargs: Any) -> list[tuple[str, str]]:
            found = []
            async for one in saver.alist(config(thread) if thread else None, **kwargs):
                assert await saver.aget_tuple(one.config) == one
                found.append((one.config["configurable"]["thread_id"], one.config["configurable"]["checkpoint_id"]))
            return found

        assert await listed("a") == [("a", f"{step}") for step in range(6, -1, -1)]
        assert await listed(None) == [(thread, f"{step}") for step in range(6, -1, -1) for thread in "ba"]
        assert await listed("a", filter={"parity": 1}) == [("a", "5"), ("a", "3"), ("a", "1")]
        assert await listed("a", before=config("a", "5")) == [("a", f"{step}") for step in range(4, -1, -1)]
        assert await listed("a", before=config("a", "6"), filter={"parity": 0}, limit=2) == [("a", "4"), ("a", "2")]
        for limit in range(9):
            assert len(await listed("a", limit=limit)) == min(limit, 7)


async def test_fifty_threads_at_once_keep_what_is_theirs(saver: DeviceCheckpointer) -> None:
    async def converse(thread: str) -> None:
        parent = config(thread)
        for step in range(5):
            parent = await put(saver, parent, {"said": f"{thread} {step}"})
            await saver.aput_writes(parent, [("next", f"{thread} {step + 1}")], "task")
            found = await saver.aget_tuple(config(thread))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"said": f"{thread} {step}"}
            assert found.pending_writes == [("task", "next", f"{thread} {step + 1}")]

    await asyncio.gather(*(converse(f"thread-{n}") for n in range(50)))


def test_versions_sort_and_never_meet() -> None:
    saver = DeviceCheckpointer.from_conn_string("postgresql://")
    versions: list[str] = []
    for _ in range(300):
        versions.append(saver.get_next_version(versions[-1] if versions else None, None))

    assert versions == sorted(versions)
    assert {len(version) for version in versions} == {16}
    assert len({saver.get_next_version(versions[-1], None) for _ in range(100)}) == 100


@pytest.mark.parametrize("current", [f"{41:032}.{0.4711:016}", 41])
def test_versions_go_on_from_those_of_other_savers(current: Any) -> None:
    saver = DeviceCheckpointer.from_conn_string("postgresql://")
    following = saver.get_next_version(current, None)

    assert following.startswith("0000002a")
    assert isinstance(current, int) or following > current


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
async def test_metadata_that_is_not_json_is_refused_before_anything_is_stored(
    saver: DeviceCheckpointer, value: object
) -> None:
    with pytest.raises(InvalidMetadata, match="must be JSON"):
        await put(saver, config("device"), {"c": 1}, metadata={"score": value})
    with pytest.raises(InvalidMetadata, match="must be JSON"):
        _ = [one async for one in saver.alist(config("device"), filter={"score": value})]
    assert await saver.aget_tuple(config("device")) is None


async def test_storing_and_reading_take_one_statement_each(watched: Watched) -> None:
    saver, run = watched.saver, watched.statements
    stored = await put(saver, config("device"), {f"channel-{n}": [n] for n in range(20)})
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: put(saver, stored, {f"channel-{n}": [n] for n in range(20)}),
        lambda: saver.aput_writes(stored, [(f"channel-{n}", n) for n in range(20)], "task"),
        lambda: saver.aget_tuple(stored),
        lambda: saver.aget_tuple(config("device")),
        lambda: saver.aget_delta_channel_history(config=stored, channels=["channel-1", "channel-2"]),
    ]
    for call in calls:
        await call()  # asyncpg asks once on each connection what an array of bytes is
        run.clear()
        await call()
        assert len(run) == 1


async def test_a_pool_of_the_callers_is_used_and_left_open(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        async with DeviceCheckpointer(pool) as saver:
            await saver.setup()
            stored = await put(saver, config("device"), {"c": 1})
        assert not pool.is_closing()
        assert await DeviceCheckpointer(pool).aget_tuple(stored) is not None


async def test_setup_makes_a_schema_of_another_name(empty_dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(empty_dsn, schema="front_desk") as saver:
        await asyncio.gather(saver.setup(), saver.setup(), saver.setup())
        stored = await put(saver, config("device"), {"c": 1})
        assert await saver.aget_tuple(stored) is not None
    async with asyncpg.create_pool(empty_dsn, min_size=0) as pool:
        assert await DeviceCheckpointer(pool, schema="front_desk").aget_tuple(stored) is not None


async def test_setup_makes_the_tables_of_conversations_and_no_others(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    try:
        # The caller's own namespace: the checkpointer has nothing to do with it.
        await connection.execute("CREATE TABLE appointments (theirs text)")
        async with DeviceCheckpointer.from_conn_string(empty_dsn) as saver:
            await saver.setup()
            stored = await put(saver, config("device"), {"c": 1})
            assert await saver.aget_tuple(stored) is not None
            await saver.adelete_thread("device")
            assert await saver.aget_tuple(stored) is None
        made = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'appointment%'"
        )
        assert [row["relname"] for row in made] == ["appointments"]
    finally:
        await connection.close()
