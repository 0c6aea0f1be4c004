"""schema.sql describes exactly the schema that the numbered files make."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from moorline_migrations import SHIPPED
from moorline_migrations.identifiers import in_schema

if TYPE_CHECKING:
    from asyncpg import Connection, Record

Catalog = Callable[..., Awaitable[list[str]]]


async def test_the_whole_schema_says_what_the_versions_make(
    connection: "Connection[Record]", dsn: str, catalog: Catalog
) -> None:
    for each in SHIPPED:
        whole = (files(each.package) / "schema.sql").read_text(encoding="utf-8")
        await connection.execute(in_schema(whole, "public"))
    replayed = await asyncpg.connect(dsn)
    try:
        written, made = await catalog(connection), await catalog(replayed)
    finally:
        await replayed.close()
    assert sorted({*made} - {*written}) == []
    assert sorted({*written} - {*made}) == []
