"""What the database of Moorline's tables takes on disk."""

from __future__ import annotations

from tests.bench.conversation import QUESTION, answer
from tests.bench.server import execute

ITSELF = len(QUESTION) + len(answer(10))
"""Bytes of a question and its answer, which have to be stored whatever else is."""

TABLES = """
SELECT relname AS name, pg_total_relation_size(relid) AS bytes, n_dead_tup AS dead, autovacuum_count AS vacuums
FROM pg_stat_user_tables
WHERE schemaname = 'public' AND relname LIKE 'conversation%'
ORDER BY relname
"""


def tables(dsn: str) -> dict[str, dict[str, int]]:
    """Of each table: its bytes with indexes, its dead rows, and how often autovacuum has come by."""
    return {row["name"]: {name: row[name] for name in ("bytes", "dead", "vacuums")} for row in execute(dsn, TABLES)}


def total(dsn: str) -> int:
    """Bytes of all tables with their indexes, dead rows and free space included."""
    return sum(table["bytes"] for table in tables(dsn).values())


def packed(dsn: str) -> int:
    """The same after dead rows and free space were thrown out."""
    execute(dsn, "VACUUM FULL ANALYZE")
    return total(dsn)
