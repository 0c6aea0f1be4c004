"""A DSN means the same to settings, checkpointer and migrations."""

import pytest

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import status
from moorline_migrations.dsn import asyncpg_dsn
from moorline_migrations.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
        (" postgresql://u@h/d\n", "postgresql://u@h/d"),
        ("postgresql://", "postgresql://"),
        ("postgresql://h1:1,h2:2/d", "postgresql://h1:1,h2:2/d"),
        ("postgresql:///d?host=/var/run", "postgresql:///d?host=/var/run"),
        ("postgres://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("postgres://h/d?ssl=require", "postgresql://h/d?sslmode=require"),
        ("postgresql+asyncpg://u:p%40x%3F@h/d", "postgresql://u:p%40x%3F@h/d"),
        ("postgres+asyncpg://h/d?a=b&ssl=require", "postgresql://h/d?a=b&sslmode=require"),
        (
            "postgresql+asyncpg://h/d?prepared_statement_cache_size=0&prepared_statement_name_func=f",
            "postgresql://h/d",
        ),
        ("postgresql+psycopg://h/d?application_name=a%20b", "postgresql://h/d?application_name=a+b"),
    ],
)
def test_every_usual_spelling_is_understood(given: str, taken: str) -> None:
    assert asyncpg_dsn(given) == taken
    assert asyncpg_dsn(taken) == taken


@pytest.mark.parametrize("given", ["mysql://u:secret@h/d", "host=h password=secret", "postgresql:h", ""])
def test_anything_else_is_refused_without_being_quoted(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must look like postgresql://") as caught:
        asyncpg_dsn(given)
    assert "secret" not in str(caught.value)


async def test_checkpointer_and_migrations_take_the_same_spellings(dsn: str) -> None:
    spelled = dsn.replace("postgresql://", "postgres+asyncpg://") + "&prepared_statement_cache_size=0"
    assert not any(component.pending for component in await status(spelled))
    async with DeviceCheckpointer.from_conn_string(spelled) as saver:
        assert await saver.get_session("device") is None
