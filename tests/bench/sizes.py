"""The size of Moorline's tables on disk."""

from __future__ import annotations

from tests.bench.conversation import QUESTION, answer
from tests.bench.server import execute

ITSELF = len(QUESTION) + len(answer(10))
"""Bytes of a question and its answer, which have to be stored in any case."""

TABLES = """
SELECT relname AS name, pg_total_relation_size(relid) AS bytes, n_dead_tup AS dead, autovacuum_count AS vacuums
FROM pg_stat_user_tables
WHERE schemaname = 'public' AND relname LIKE 'conversation%'
ORDER BY relname
"""


def tables(dsn: str) -> dict[str, dict[str, int]]:
    """For each table: its bytes with indexes, its dead rows, and how often autovacuum has run on it."""
    return {row["name"]: {name: row[name] for name in ("bytes", "dead", "vacuums")} for row in execute(dsn, TABLES)}


def total(dsn: str) -> int:
    """Bytes of all tables with their indexes, including dead rows and free space."""
    return sum(table["bytes"] for table in tables(dsn).values())


def packed(dsn: str) -> int:
    """The same after dead rows and free space were removed."""
    execute(dsn, "VACUUM FULL ANALYZE")
    return total(dsn)
