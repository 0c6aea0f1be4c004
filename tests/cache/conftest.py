"""One Redis for the tests of a module, emptied before each."""

from collections.abc import Iterator

import pytest

from tests.redis_server import REDIS, RedisProcess, running_redis


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisProcess]:
    if REDIS is None:
        pytest.skip("redis-server is not installed")
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(module_redis: RedisProcess) -> RedisProcess:
    with module_redis.client() as client:
        client.flushall()
    return module_redis
