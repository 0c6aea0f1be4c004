"""Checks of what conversations have left behind: turns, messages, locks, dead rows."""

from __future__ import annotations

from moorline.doctor.case import Case
from moorline.doctor.finding import Finding

MANY_EXPIRED = 1_000
"""Expired locks that say that nobody cleans up."""

DEAD_ROWS, DEAD_PART = 10_000, 0.5
"""Dead rows that say that vacuum does not keep up: so many, and so many for a live one."""

OLD_IDS = 1_000_000_000
"""Transactions since the oldest row was frozen; at about 2 billion the server stops."""


async def leases(case: Case) -> Finding:
    """Turns that nobody finishes."""
    row = await case.row("leases")
    if row["turns"]:
        seen = f"{row['turns']} turns whose process died, the oldest {row['seconds']:.0f} s after its lease"
        todo = "Run `moorline recover`; the device's next message finishes its turn, too."
        return Finding("leases", "warn", seen, todo)
    return Finding("leases", "ok", "no turn is left behind")


async def transactions(case: Case) -> Finding:
    """Transactions that keep rows locked, or dead rows from being removed."""
    row = await case.row("long_transactions")
    if row["transactions"]:
        seen = (
            f"{row['transactions']} transactions have been open for more than a minute, one for {row['seconds']:.0f} s"
        )
        todo = "Find them in pg_stat_activity (xact_start); they may lock devices, and vacuum waits for them."
        return Finding("transactions", "warn", seen, todo)
    return Finding("transactions", "ok", "none is open for more than a minute")


async def bloat(case: Case) -> Finding:
    """Whether vacuum keeps up."""
    vacuum = await case.row("vacuum")
    if not vacuum["automatic"]:
        return Finding("bloat", "fail", "autovacuum is off", "Switch it on: every turn leaves dead rows.")
    if vacuum["age"] > OLD_IDS:
        seen = f"the oldest row was frozen {vacuum['age']:,} transactions ago"
        return Finding("bloat", "fail", seen, "Run VACUUM (FREEZE), and see what keeps autovacuum from it.")
    rows = await case.fetch("bloat", case.settings.schema_name)
    behind = [row for row in rows if row["dead"] > DEAD_ROWS + DEAD_PART * row["live"]]
    if behind:
        seen = ", ".join(f"{row['name']} has {row['dead']:,} dead rows for {row['live']:,}" for row in behind)
        todo = "Run VACUUM on it, and see what keeps autovacuum: long transactions, or autovacuum_naptime."
        return Finding("bloat", "warn", seen, todo)
    return Finding("bloat", "ok", f"{sum(row['dead'] for row in rows):,} dead rows in {len(rows)} tables")


async def dead_letters(case: Case) -> Finding:
    """Messages that were set aside."""
    count = await case.value("dead_count")
    if count:
        todo = "`moorline turns --dead` says why; `moorline recover --device ID --message ID` tries one again."
        return Finding("dead letters", "warn", f"{count} messages failed too often and were set aside", todo)
    return Finding("dead letters", "ok", "none")


async def cleanup(case: Case) -> Finding:
    """Whether somebody cleans up."""
    row = await case.row("cleanups")
    seen = f"{row['expired']} expired locks are still there"
    todo = "Let `moorline serve` run, or `moorline cleanup` from cron: figures and retention depend on it."
    if row["overdue"]:
        return Finding("cleanup", "warn", f"the last one was more than a day ago; {seen}", todo)
    if row["expired"] > MANY_EXPIRED:
        return Finding("cleanup", "warn", seen, todo)
    return Finding("cleanup", "ok", seen)
