"""SQL commands that a tool may not give: they would end its transaction or outlive it."""

from __future__ import annotations

from moorline_checkpoint.errors import TransactionError

_REFUSED = frozenset(
    [
        *("begin", "start", "commit", "end", "abort", "rollback", "savepoint", "release"),
        *("prepare", "deallocate", "set", "reset", "discard", "listen", "unlisten", "load"),
    ]
)


def check_command(sql: str) -> None:
    """Raises `TransactionError` if the text, a single command, is one that is refused."""
    word = _first_word(sql).lower()
    if word in _REFUSED:
        raise TransactionError(
            f"{word.upper()} is refused in a tool's transaction. A block of `context.transaction()` begins, commits "
            "and rolls back by itself; for a setting that ends with it, use SELECT set_config(name, value, true)."
        )


def is_one_command(sql: str) -> bool:
    """Whether the text is certainly a single command; False if only the server can tell."""
    return ";" not in sql.rstrip("; \t\r\n")


def _first_word(sql: str) -> str:
    """The text up to the end of its first word, without blanks, empty commands and comments before it."""
    at = 0
    while at < len(sql):
        if sql[at] == ";" or sql[at].isspace():
            at += 1
        elif sql.startswith("--", at):
            at = _end_of_line(sql, at)
        elif sql.startswith("/*", at):
            at = _end_of_comment(sql, at)
        else:
            break
    end = at
    while end < len(sql) and (sql[end].isalnum() or sql[end] == "_"):
        end += 1
    return sql[at:end]


def _end_of_line(sql: str, at: int) -> int:
    while at < len(sql) and sql[at] not in "\r\n":
        at += 1
    return at


def _end_of_comment(sql: str, at: int) -> int:
    """Comments may be nested."""
    depth = 0
    while at < len(sql):
        two = sql[at : at + 2]
        depth += (two == "/*") - (two == "*/")
        at += 2 if two in ("/*", "*/") else 1
        if not depth:
            break
    return at
