import pytest

from moorline import Settings


@pytest.fixture
def settings(dsn: str) -> Settings:
    return Settings(database_url=dsn)
