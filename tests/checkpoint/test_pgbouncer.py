"""Behind PgBouncer in transaction mode, which gives each transaction whatever server connection is free."""

import asyncio
from collections.abc import Iterator

import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations.errors import ConfigurationError
from tests.checkpoint.checkpoints import config, put
from tests.pgbouncer import needs_pgbouncer, pooled

pytestmark = needs_pgbouncer


@pytest.fixture
def pooled_dsn(dsn: str) -> Iterator[str]:
    """The test's database through a PgBouncer with two server connections."""
    with pooled(dsn) as pooled_dsn:
        yield pooled_dsn


async def test_all_of_a_checkpointer_works_without_a_statement_cache(pooled_dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(pooled_dsn, statement_cache_size=0, pool_size=10) as saver:
        await saver.setup()

        async def converse(thread: str) -> None:
            parent = config(thread)
            for turn in range(10):
                parent = await put(saver, parent, {"n": [turn], "of": thread})
                await saver.aput_writes(parent, [("n", turn)], "task")
                await saver.set_session_lock(thread, f"agent-{turn}")
                found = await saver.aget_tuple(config(thread))
                assert found is not None
                assert found.checkpoint["channel_values"] == {"n": [turn], "of": thread}
                assert found.pending_writes == [("task", "n", turn)]
                assert await saver.get_session_lock(thread) == f"agent-{turn}"

        await asyncio.gather(*(converse(f"thread-{n}") for n in range(20)))
        assert len([one async for one in saver.alist(config("thread-1"))]) == 10
        await saver.aprune([f"thread-{n}" for n in range(20)])
        assert len([one async for one in saver.alist(None)]) == 20
        assert len([one async for one in saver.sessions()]) == 20
        await saver.acopy_thread("thread-1", "copy")
        history = await saver.aget_delta_channel_history(config=config("copy"), channels=["n"])
        assert history == {"n": {"writes": []}}
        assert await saver.clear_session_lock("thread-1")
        assert await saver.cleanup_expired_sessions() == 0
        await saver.adelete_thread("copy")
        assert await saver.aget_tuple(config("copy")) is None


async def test_with_a_statement_cache_it_works_or_says_what_to_set(pooled_dsn: str) -> None:
    """It works with PgBouncer 1.21 or newer, which tracks prepared statements."""
    async with DeviceCheckpointer.from_conn_string(pooled_dsn, pool_size=10) as saver:

        async def read(thread: str) -> None:
            for _ in range(20):
                assert await saver.aget_tuple(config(thread)) is None
                assert await saver.get_session_lock(thread) is None

        try:
            await asyncio.gather(*(read(f"thread-{n}") for n in range(10)))
        except ConfigurationError as error:
            assert "statement_cache_size" in str(error)  # noqa: PT017 - one of two correct outcomes
