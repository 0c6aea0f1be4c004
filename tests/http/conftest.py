"""A database that the tests of a module share, as their server does."""

from collections.abc import Iterator

import pytest

from tests.conftest import fresh_database


@pytest.fixture(scope="module")
def module_dsn(server_dsn: str, template: str) -> Iterator[str]:
    with fresh_database(server_dsn, template) as fresh:
        yield fresh
