"""Facts: what a store finds, refuses and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from moorline_checkpoint import FactStore
from moorline_checkpoint.facts import KEY_BYTES, VALUE_BYTES

from .test_removal import waiting_for_a_lock

HOSTILE = "'\"; DROP TABLE conversation_facts; --"


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[FactStore]:
    async with FactStore.from_conn_string(dsn) as store:
        yield store


async def keys(store: BaseStore, **filter: Any) -> list[str]:
    """The keys of the dogs and cats whose values fit."""
    return sorted(item.key for item in await store.asearch(("pets",), filter=filter))


@pytest.mark.parametrize(
    ("filter", "fitting"),
    [
        ({"name": "Rex"}, ["rex"]),
        ({"age": 3}, ["ada"]),
        ({"age": {"$eq": 3.0}}, ["ada"]),
        ({"age": {"$ne": 3}}, ["nul", "rex", "tom"]),
        ({"age": {"$gt": 9}}, ["rex"]),
        ({"age": {"$gte": 3, "$lt": 10}}, ["ada"]),
        ({"age": {"$lte": 3}}, ["ada"]),
        ({"name": {"$lt": "Tom"}, "age": {"$gt": 0}}, ["ada", "rex"]),
        ({"name": {"$gt": "Zoë"}}, ["nul"]),
        ({"age": "ten"}, ["tom"]),
        ({"age": {"$gt": "a"}}, ["tom"]),
        ({"chip": None}, ["ada", "nul", "tom"]),
        ({"chip": {"number": 7}}, ["rex"]),
        ({"chip": {"$gt": 0}}, []),
        ({"toys": ["ball", "bone"]}, ["ada"]),
        ({"toys": {}}, ["tom"]),
        ({"good": True}, ["rex"]),
        ({"good": 1}, []),
        ({"it's": HOSTILE}, ["tom"]),
        ({"nul\0": "a\0b"}, ["nul"]),
    ],
)
async def test_a_filter_compares_numbers_with_numbers_and_texts_with_texts(
    store: FactStore, filter: dict[str, Any], fitting: list[str]
) -> None:
    await store.aput(("pets", "dogs"), "rex", {"name": "Rex", "age": 10, "chip": {"number": 7}, "good": True})
    await store.aput(("pets", "dogs"), "ada", {"name": "Ada", "age": 3, "toys": ["ball", "bone"]})
    await store.aput(("pets", "cats"), "tom", {"name": "Tom", "age": "ten", "toys": {}, "it's": HOSTILE})
    await store.aput(("pets", "cats"), "nul", {"name": "\u0448", "nul\0": "a\0b"})
    await store.aput(("petshop",), "rex", {"name": "Rex", "age": 10})
    assert await keys(store, **filter) == fitting


async def test_namespaces_begin_and_end_with_whole_labels(store: FactStore) -> None:
    for namespace in [("a",), ("a", "b"), ("a", "b", "c"), ("a/", "b"), ("ab",), ("a b", "c"), ("é", "\U0010ffff")]:
        await store.aput(namespace, "k", {})
    assert {item.namespace for item in await store.asearch(("a",))} == {("a",), ("a", "b"), ("a", "b", "c")}
    assert await store.alist_namespaces(prefix=("*", "b")) == [("a", "b"), ("a", "b", "c"), ("a/", "b")]
    assert await store.alist_namespaces(suffix=("c",)) == [("a b", "c"), ("a", "b", "c")]
    assert await store.alist_namespaces(suffix=("*", "c"), prefix=("a",)) == [("a", "b", "c")]
    assert await store.alist_namespaces(prefix=("a", "b", "c", "*")) == []
    assert await store.alist_namespaces(max_depth=1) == [("a",), ("a b",), ("a/",), ("ab",), ("é",)]
    assert await store.alist_namespaces(limit=2, offset=2) == [("a", "b"), ("a", "b", "c")]
    assert len(await store.asearch(())) == 7


async def test_values_and_names_come_back_as_they_were(store: FactStore) -> None:
    value = {"nul": "a\0b", "half": "\ud83d", "escape": "\x1a0000", "number": 1.5, "list": [None, True, {"é": 2**70}]}
    await store.aput(("a\x1ab", "\ud800"), "k\0\x1a", value)
    item = await store.aget(("a\x1ab", "\ud800"), "k\0\x1a")
    assert item is not None
    assert (item.value, item.key, item.namespace) == (value, "k\0\x1a", ("a\x1ab", "\ud800"))
    [found] = await store.asearch(("a\x1ab",))
    assert (found.value, found.key, found.namespace) == (value, item.key, item.namespace)
    assert await store.alist_namespaces() == [item.namespace]
    assert item.created_at == item.updated_at
    await store.aput(item.namespace, item.key, {"new": 1})
    again = await store.aget(item.namespace, item.key)
    assert again is not None
    assert again.created_at == item.created_at < again.updated_at


deep: dict[str, Any] = {}
for _ in range(100_000):
    deep = {"deeper": deep}


@pytest.mark.parametrize(
    "op",
    [
        PutOp(("a",), "k", {"text": "x" * VALUE_BYTES}),
        PutOp(("a",), "k", {"number": float("nan")}),
        PutOp(("a",), "k", deep),
        PutOp(("a",), "k", {"text": object()}),
        PutOp(("a",), "k", ["no", "dict"]),  # type: ignore[arg-type]
        PutOp(("a",), "é" * KEY_BYTES, {}),
        PutOp(("a",), "", {}),
        PutOp(("a",), 7, {}),  # type: ignore[arg-type]
        PutOp(("a",), "k", {}, ttl=-1),
        PutOp(("a",), "k", {}, ttl=float("inf")),
        PutOp(("a",) * 21, "k", {}),
        PutOp(("a" * 1024,), "k", {}),
        PutOp((), "k", {}),
        PutOp(("a.b",), "k", {}),
        PutOp("bikes", "k", {}),  # type: ignore[arg-type]
        GetOp("bikes", "k"),  # type: ignore[arg-type]
        SearchOp("bikes"),  # type: ignore[arg-type]
        ListNamespacesOp((MatchCondition("prefix", "bikes"),)),  # type: ignore[arg-type]
        SearchOp(("a",), limit=1001),
        SearchOp(("a",), limit=-1),
        SearchOp(("a",), offset=-1),
        SearchOp(("a",), filter={"n": {"$near": 1}}),
        SearchOp(("a",), filter={"n": float("nan")}),
        SearchOp(("a",), filter={"n": "x" * VALUE_BYTES}),
        SearchOp(("a",), query="dogs"),
    ],
)
async def test_what_cannot_be_stored_or_asked_is_refused_with_all_of_its_batch(store: FactStore, op: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        await store.abatch([PutOp(("a",), "first", {}), op])
    assert await store.asearch(()) == []


async def test_the_longest_names_and_the_largest_value_are_stored(dsn: str, store: FactStore) -> None:
    namespace, key = ("\U0001f600" * 255, "aa"), "\U0001f600" * (KEY_BYTES // 4)
    value = {"text": "x" * (VALUE_BYTES - 11)}
    await store.aput(namespace, key, value)
    item = await store.aget(namespace, key)
    assert item is not None
    assert item.value == value


async def test_searching_by_meaning_is_refused_with_what_to_do(dsn: str, store: FactStore) -> None:
    with pytest.raises(ValueError, match="leave out index="):
        FactStore.from_conn_string(dsn, index={"dims": 3, "embed": "openai:small"})
    with pytest.raises(ValueError, match="leave out query="):
        await store.asearch(("a",), query="dogs")


async def test_a_batch_is_refused_if_it_is_too_large(store: FactStore) -> None:
    with pytest.raises(ValueError, match="1,001"):
        await store.abatch([GetOp(("a",), "k")] * 1001)


async def test_writers_of_the_same_facts_never_wait_for_each_other_in_a_circle(store: FactStore) -> None:
    names = [f"k{n}" for n in range(20)]

    async def put(order: list[str]) -> None:
        await store.abatch([PutOp(("a",), name, {"n": 1}) for name in order])

    await asyncio.gather(*(put(names if n % 2 else names[::-1]) for n in range(20)))
    assert len(await store.asearch(("a",), limit=100)) == 20


async def test_readers_that_let_facts_live_longer_never_wait_for_each_other_in_a_circle(
    dsn: str, store: FactStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await store.abatch([PutOp(("a",), key, {"n": 1}, ttl=5) for key in "abc"])
    watching = await asyncpg.connect(dsn)
    async with FactStore.from_conn_string(dsn) as other:
        async with connection.transaction():
            await connection.execute("SELECT FROM conversation_facts WHERE key = 'b' FOR UPDATE")
            reads = [
                asyncio.create_task(each.abatch([GetOp(("a",), key) for key in order]))
                for each, order in ((store, "abc"), (other, "cba"))
            ]
            await waiting_for_a_lock(watching, 2)
            # Neither has what comes after the one for which they wait.
            await watching.execute("SELECT FROM conversation_facts WHERE key = 'c' FOR UPDATE NOWAIT")
        for found in await asyncio.gather(*reads):
            assert None not in found
    await watching.close()


async def test_expired_facts_are_removed_and_others_stay(
    store: FactStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    for n in range(3):
        await store.aput(("a",), f"k{n}", {}, ttl=None if n == 2 else 5)
    await connection.execute("UPDATE conversation_facts SET expires_at = now() - interval '1 s' WHERE key = 'k0'")
    held = connection.transaction()
    await held.start()
    await connection.execute("UPDATE conversation_facts SET value = '{}' WHERE key = 'k0'")
    assert await store.sweep_ttl() == 0  # somebody writes it
    await held.rollback()
    assert await store.sweep_ttl() == 1
    assert sorted(item.key for item in await store.asearch(("a",))) == ["k1", "k2"]
