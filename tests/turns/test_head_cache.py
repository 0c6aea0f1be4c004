"""A process does not read again what it has cached of a device, and the cache is never wrong."""

import asyncio
import gc

import pytest

from moorline_checkpoint import head_cache
from moorline_checkpoint.head_cache import HeadCache
from moorline_checkpoint.rows import CheckpointRow, HeadRows, ValueRow, WriteRow
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns

from .claims import claim, message, record
from .counted import gone
from .runtimes import execute, runtime, say
from .talks import conversation, differences, told_coldly, told_warmly

READS = """
    SELECT sum(seq_scan + idx_scan) AS reads FROM pg_stat_user_tables
    WHERE relname = 'conversation_values'
"""
"""Reading a checkpoint reads its values. The other tables are left out: each commit looks in their indexes for rows
that an earlier turn left."""


async def reads(dsn: str) -> int:
    """The number of reads of state."""
    await gone(dsn)
    return int((await execute(dsn, READS))[0]["reads"])


async def reads_of_a_process(dsn: str, device: str, turns: int) -> int:
    before = await reads(dsn)
    async with runtime(dsn, keep_turns=1000) as moorline:
        for _ in range(turns):
            await say(moorline, "hello", device=device)
    return await reads(dsn) - before


async def test_a_process_reads_the_state_of_a_device_once(dsn: str) -> None:
    for device in ("d1", "d2"):
        await reads_of_a_process(dsn, device, 5)
    once = await reads_of_a_process(dsn, "d1", 1)
    assert once > 0
    assert await reads_of_a_process(dsn, "d2", 20) == once


async def test_a_process_that_was_not_the_last_reads_again_and_is_shown_all(dsn: str) -> None:
    async with runtime(dsn) as one, runtime(dsn) as other:
        for number in range(1, 12):
            assert await say((one, one, other)[number % 3], "hello") == f"{number}: hello"


@pytest.mark.parametrize("seed", range(2))
async def test_a_process_with_a_cache_is_shown_what_a_fresh_one_is_shown(dsn: str, seed: int) -> None:
    steps = conversation(seed, 90)
    cold = await told_coldly(dsn, steps)
    for device in {step.device for step in steps}:
        async with runtime(dsn) as moorline:
            await moorline.erase(device)
    warm = await told_warmly(dsn, steps, 3)
    assert list(differences(cold, warm, steps)) == []
    # It was a real conversation: every agent spoke, and one failed.
    assert {reply.split()[0].strip(",") for reply in cold} >= {"hair", "nails", "diary", "ModelError", "erased"}


async def test_a_history_that_is_stored_whole_now_and_then_is_known_whole(dsn: str) -> None:
    """The agents of the kit cut a history of 160 messages to half, and store theirs whole every 30 updates."""
    async with runtime(dsn) as moorline:
        for number in range(1, 101):
            shown = number if number <= 80 else number - 40
            assert await say(moorline, "hello") == f"{shown}: hello"
    async with runtime(dsn) as moorline:
        assert await say(moorline, "hello") == "61: hello"


async def left(turns: Turns, device: str, size: int) -> OpenTurn:
    """Runs a turn that leaves a head of so many bytes."""
    turn = await claim(turns, message(device=device))
    turn.set_lock("desk", None)
    value = ValueRow("desk", "history", "1", "bytes", bytes(size))
    turn.put(CheckpointRow("desk", device, None, "json", b"", "{}", '{"history": "1"}'), [value])
    return turn


async def test_what_is_known_stays_within_its_bounds(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_cache, "LIMIT", 100_000)
    size = 10_000
    cache = HeadCache()
    devices = [f"d{number}" for number in range(30)]
    for device in devices:
        cache.put(await left(turns, device, size))
        held = [one for one in devices if cache.get(one).heads]
        assert len(held) * size <= head_cache.LIMIT
        # The last ones, in order of use.
        assert held == devices[devices.index(device) + 1 - len(held) : devices.index(device) + 1]
    assert len(held) > 5
    cache.put(await left(turns, "large", head_cache.LIMIT))
    assert not cache.get("large").heads
    assert [one for one in devices if cache.get(one).heads] == held


async def test_a_device_that_goes_on_is_counted_once(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_cache, "LIMIT", 100_000)
    cache = HeadCache()
    first, other = await left(turns, "d1", 10_000), await left(turns, "d2", 10_000)
    cache.put(other)
    for _ in range(50):
        cache.put(first)
    assert cache.get("d2").heads
    for _ in range(50):
        cache.put(first)
        cache.forget("d1")
        cache.forget("d1")
    assert not cache.get("d1").heads
    assert cache.get("d2").heads


async def test_what_a_claim_need_not_bring_stays_until_it_is_answered(turns: Turns) -> None:
    """Else a turn in a crowd would read one by one what others have pushed out of the cache meanwhile."""
    first = await left(turns, "d1", 10)
    await turns.commit(first, record(first))
    claiming = asyncio.create_task(claim(turns, message("m2")))
    await asyncio.sleep(0)
    turns.forget("d1")
    assert (await claiming).prefetched["desk"].head.values == list(first.channel_values.values())


async def test_the_writes_of_a_history_keep_their_order(turns: Turns) -> None:
    cache = HeadCache()
    told = []
    held: dict[str, HeadRows] = {}
    for number in range(1, 4):
        turn = await claim(turns, message(f"m{number}"))
        turn.set_lock("desk", None)
        turn.prefetched = held
        begun, ended = f"{number}a", f"{number}b"
        counted = '{"counters_since_delta_snapshot": {"history": [1, 1]}}'
        turn.put(CheckpointRow("desk", begun, f"{number - 1}b" if held else None, "json", b"", counted, "{}"), [])
        for path, task, idx in (("~2", "t1", 0), ("~1", "t2", 1), ("~1", "t2", 0)):
            blob = f"{number}{path}{idx}".encode()
            turn.put_writes([WriteRow("desk", begun, task, idx, path, "history", "bytes", blob)], replace=False)
        turn.put(CheckpointRow("desk", ended, begun, "json", b"", counted, "{}"), [])
        await turns.commit(turn, record(turn))
        cache.put(turn)
        held = dict(cache.get("d1").heads)
        assert held["desk"].head.checkpoint.id == ended
        told += [f"{number}{place}".encode() for place in ("~10", "~11", "~20")]
        assert [write.blob for write in held["desk"].history.writes] == told


def holds(secret: bytes) -> bool:
    """Whether the process has rows with this text in memory."""
    gc.unfreeze()  # the first turn of a process freezes what is alive, which is then not listed
    gc.collect()
    rows = [one for one in gc.get_objects() if isinstance(one, HeadRows)]
    blobs = [write.blob for one in rows for write in one.head.writes]
    blobs += [write.blob for one in rows for write in one.history.writes]
    blobs += [value.blob for one in rows for value in (*one.head.values, *one.history.seeds.values())]
    return any(secret in blob for blob in blobs)


async def test_an_erasure_leaves_nothing_of_the_device_in_the_process(dsn: str) -> None:
    async with runtime(dsn) as moorline:
        await say(moorline, "plover")
        assert await say(moorline, "hello", device="d2") == "1: hello"
        assert holds(b"plover")
        await moorline.erase("d1")
        assert not holds(b"plover")
        assert holds(b"hello")
        assert await say(moorline, "hello") == "1: hello"


async def test_an_erasure_elsewhere_is_found_out_by_the_next_turn(dsn: str) -> None:
    async with runtime(dsn) as one, runtime(dsn) as other:
        await say(one, "plover")
        await other.erase("d1")
        assert await say(one, "hello") == "1: hello"
        assert not holds(b"plover")
