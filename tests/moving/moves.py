"""Exporting and importing in the test's process, and what a database holds."""

# ruff: noqa: S608 - the names put into statements are the catalogue's.
from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from moorline.moving.exporting import Counts, export
from moorline.moving.importing import Outcome, import_lines
from moorline.moving.tables import LEFT_OUT
from moorline_checkpoint.database import Database
from moorline_migrations import SHIPPED, Migrations

Contents = dict[str, list[str]]


async def exported(
    dsn: str, device_id: str | None = None, *, components: Sequence[Migrations] = SHIPPED, schema: str = "public"
) -> bytes:
    """What `moorline export` writes, of all if no device is named."""
    database = Database(dsn, schema=schema)
    try:
        lines = export(database, components=components, device_id=device_id, counts=Counts())
        return b"".join([line async for line in lines])
    finally:
        await database.close()


async def imported(
    dsn: str, file: bytes, *, components: Sequence[Migrations] = SHIPPED, schema: str = "public"
) -> list[Outcome]:
    """What `moorline import` tells of conversations and shared rows, in order."""
    database = Database(dsn, schema=schema)
    told: list[Outcome] = []
    try:
        await import_lines(database, io.BytesIO(file), components=components, tell=told.append)
    finally:
        await database.close()
    return told


def results(told: Sequence[Outcome]) -> dict[str, str]:
    """What became of each conversation, by its devices."""
    return {each.what: each.result for each in told if not each.what.startswith("appointment_")}


async def contents(dsn: str, *, left_out: bool = False) -> Contents:
    """The rows of every table in `public` but those that are left out, as texts with all of their columns. Appointments
    of devices that were erased are nobody's."""
    connection = await asyncpg.connect(dsn)
    try:
        names = await connection.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
        tables = sorted(name for (name,) in names if left_out or name not in LEFT_OUT)
        kept = {"appointments": "WHERE t.device_id <> ''"}
        return {
            name: sorted(
                [row[0] for row in await connection.fetch(f"SELECT (t.*)::text FROM {name} t {kept.get(name, '')}")]
            )
            for name in tables
        }
    finally:
        await connection.close()


async def execute(dsn: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


def lines_of(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.splitlines()]


def file_of(lines: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
