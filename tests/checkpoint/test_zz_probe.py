import asyncio, collections, pytest
from tests.checkpoint.test_pgbouncer import *
from tests.checkpoint.test_pgbouncer import pooled_dsn
async def test_probe(pooled_dsn):
    c = collections.Counter()
    for _ in range(5):
        async with DeviceCheckpointer.from_conn_string(pooled_dsn, pool_size=10) as saver:
            async def read(t):
                for _ in range(20):
                    try:
                        assert await saver.aget_tuple(config(t)) is None
                        assert await saver.get_session_lock(t) is None
                        c["ok"] += 1
                    except Exception as e:
                        c[repr(e)[:150]] += 1
            await asyncio.gather(*(read(f"t{n}") for n in range(10)))
    print(c)
