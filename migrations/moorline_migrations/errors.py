"""The root of Moorline's errors, and the one place where a driver's errors become ours."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import asyncpg


class MoorlineError(Exception):
    """Root of every error that Moorline raises on purpose. Its text says what to do.

    An error that comes out of a turn also says whose turn it was, and whether it has effects that stand.
    """

    retryable: bool = False
    """Whether the same call may succeed later without any change."""
    device_id: str | None = None
    """The tag that stands for the device in the logs, never the ID itself."""
    message_id: str | None = None
    """The ID with which to send the message again, even if Moorline made it: what its tools did is then not done
    twice."""
    effects_kept: bool = False
    """Whether the message has effects that stand, or may stand. False is certain, except in `SessionBusy`, which only
    says that this call had none."""

    def __str__(self) -> str:
        return " ".join(filter(None, (super().__str__(), self._what_stands())))

    def to_json(self) -> dict[str, Any]:
        """The error as JSON, for whoever made the call."""
        return {
            "type": type(self).__name__,
            "message": str(self),
            "retryable": self.retryable,
            "message_id": self.message_id,
            "effects_kept": self.effects_kept,
        }

    def _what_stands(self) -> str:
        if self.message_id is None:
            return ""
        if self.effects_kept:
            return (
                f"What its tools have done stands: sent again with message_id {self.message_id!r}, the message is "
                "finished and nothing is done twice."
            )
        if self.retryable:
            return f"Its tools have done nothing: send the message again with message_id {self.message_id!r}."
        return ""


class ConfigurationError(MoorlineError):
    """A setting, a name or a right is wrong; trying again does not help."""


class SchemaMismatch(MoorlineError):
    """The tables are not those that this code needs: missing, too old, too new, or impossible to adopt."""


class StateDamaged(MoorlineError):
    """What is stored of a device cannot be read: a row is damaged, or was written by something else. No other device is
    affected. Repair or restore the device's rows, or erase the device; the messages are not at fault."""


class StoreUnavailable(MoorlineError):
    """The database did not answer, or could not do the work now; the same call may succeed later."""

    retryable = True
    reached = True
    """Whether what was sent may have been done all the same; False if there was not even a connection."""


DAMAGED = (
    "What is stored of this device cannot be read, because a row is damaged or was written by something else; repair "
    "its rows, or erase the device"
)
"""The advice of `StateDamaged`."""

_Meaning = tuple[type[MoorlineError], str]

_MIGRATE = "run `moorline migrate` with a role that owns the schema"
_POOLER = "set statement_cache_size to 0, or let the pooler track prepared statements"
_TAKEN = "is taken by something that is not Moorline's; set MOORLINE_SCHEMA to a schema of its own"
_TOO_LONG = "The database ended a transaction that took longer than it allows; try again"
_REFUSED = "ML001"
"""The SQLSTATE with which our SQL refuses what it finds; the hint says what to change."""

_UNKNOWN = "ML002"
"""The same if it is asked for something unknown, for example by code that is newer than the schema."""

_VALUE = re.compile('(: |value )".*"', re.DOTALL)

_DAMAGED = "ML004"
"""The same if a device's rows contradict each other."""

_BY_STATE: dict[str, _Meaning] = {
    _REFUSED: (SchemaMismatch, "Refused; nothing was changed"),
    _UNKNOWN: (ConfigurationError, "The schema does not know what it is asked for"),
    _DAMAGED: (StateDamaged, DAMAGED),
    "25P03": (StoreUnavailable, _TOO_LONG),
    "25P04": (StoreUnavailable, _TOO_LONG),
    "25006": (StoreUnavailable, "The database is read-only at present; try again once it takes writes"),
    "26000": (ConfigurationError, f"The pooler lost a prepared statement; {_POOLER}"),
    "3D000": (ConfigurationError, "The database does not exist; create it or correct DATABASE_URL"),
    "3F000": (SchemaMismatch, f"The schema is missing; {_MIGRATE}"),
    "40001": (StoreUnavailable, "The transaction conflicted with another one; try again"),
    "40P01": (StoreUnavailable, "The database ended the transaction to break a deadlock; try again"),
    "42501": (ConfigurationError, "The role lacks a right; grant it, or migrate as the owner of the tables"),
    "42703": (SchemaMismatch, f"A column is missing; {_MIGRATE}"),
    "42723": (SchemaMismatch, f"The name of a function {_TAKEN}"),
    "42883": (SchemaMismatch, f"A function is missing; {_MIGRATE}"),
    "42P01": (SchemaMismatch, f"A table is missing; {_MIGRATE}"),
    "42P05": (ConfigurationError, f"The pooler mixed up prepared statements; {_POOLER}"),
    "42P07": (SchemaMismatch, f"The name of a table {_TAKEN}"),
    "55P03": (StoreUnavailable, "Another transaction holds the table; try again"),
}
_BY_CLASS: dict[str, _Meaning] = {
    "08": (StoreUnavailable, "The connection to the database was lost; try again"),
    "28": (ConfigurationError, "The database refused the login; correct user and password in DATABASE_URL"),
    "53": (StoreUnavailable, "The database is out of disk, memory or connections; free some, then try again"),
    "57": (StoreUnavailable, "The database stopped, is starting, or cancelled the statement; try again"),
    "58": (StoreUnavailable, "The database had a system error; look at its log, then try again"),
}
_BY_TYPE: tuple[tuple[type[Exception], _Meaning], ...] = (
    (asyncpg.ClientConfigurationError, (ConfigurationError, "DATABASE_URL cannot be used; correct it")),
    (asyncpg.InterfaceError, (StoreUnavailable, "The connection to the database broke; try again")),
    (asyncpg.InternalClientError, (StoreUnavailable, "The connection to the database broke; try again")),
    (socket.gaierror, (ConfigurationError, "The host of DATABASE_URL is unknown; correct it")),
    (
        ssl.SSLCertVerificationError,
        (ConfigurationError, "The certificate is not trusted; correct sslmode or sslrootcert"),
    ),
    (OSError, (StoreUnavailable, "The database does not answer; check that it is running and reachable")),
)


def translate(error: BaseException) -> MoorlineError | None:
    """Our error for one that asyncpg or the operating system raised while the database was used, or None.

    It is None for an error that is ours already, and for a mistake in a statement or its arguments.
    """
    found = _meaning(error)
    if found is None:
        return None
    kind, advice = found
    return kind(f"{advice}. {_detail(error)}")


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises our translation of what the block raises, from the original; the block may await.

    For database calls only: any OSError or TimeoutError in the block is taken for the database's.
    """
    try:
        yield
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error


@contextmanager
def connect_errors() -> Iterator[None]:
    """`store_errors` for opening a connection: a DSN or an environment that cannot be used is a ConfigurationError,
    too."""
    try:
        yield
    except MoorlineError:
        raise
    except (ValueError, OverflowError):
        # The original may quote part of the password if that was not encoded.
        raise ConfigurationError(
            "DATABASE_URL cannot be read; correct it, and percent-encode special characters of the password"
        ) from None
    except Exception as error:
        ours = translate_connect(error)
        if ours is None:
            raise
        raise ours from error


def translate_connect(error: Exception) -> MoorlineError | None:
    """`translate` for an error that asyncpg raised while it connected, or tried to find out where and as whom."""
    if isinstance(error, KeyError) or isinstance(error.__cause__, KeyError):  # as getpass.getuser() raises it
        return ConfigurationError(
            "DATABASE_URL names no user, and this process's own has no name; write postgresql://user@host/name"
        )
    if isinstance(error, OSError) and _before_connecting(error):
        return ConfigurationError(
            "A file that DATABASE_URL or the environment (HOME, PGPASSFILE, PGSERVICEFILE, PGSSLROOTCERT) names cannot "
            f"be used; correct the name or the file. {_detail(error)}"
        )
    if isinstance(error, PermissionError):
        return ConfigurationError(f"This process may not connect to the database's socket; allow it. {_detail(error)}")
    return translate(error)


def _before_connecting(error: Exception) -> bool:
    """Whether asyncpg raised it while it read its arguments, the environment, and the files that these name."""
    return any(frame.f_code.co_name == "_parse_connect_arguments" for frame, _ in walk_tb(error.__traceback__))


def _meaning(error: BaseException) -> _Meaning | None:
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return StoreUnavailable, "The tables changed under a prepared statement; try again"
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate)
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    if isinstance(error, ValueError) and type(error).__name__ == "DataError":
        return None
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return StoreUnavailable, "The host of DATABASE_URL cannot be resolved at present; try again"
    return next((meaning for kind, meaning in _BY_TYPE if isinstance(error, kind)), None)


def _detail(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in (_REFUSED, _UNKNOWN):
        return f"{error.args[0]}: {error.hint}"
    # Not str(error), which has PostgreSQL's DETAIL in it: that quotes rows.
    if isinstance(error, asyncpg.PostgresError) and error.args:
        return f"The cause: {without_values(str(error.args[0]))}"
    return f"The cause: {str(error) or type(error).__name__}"


def without_values(message: str) -> str:
    """A message of PostgreSQL without the value of a row that it quotes, which stands in quotes after a colon or after
    the word `value`; names that are quoted stay."""
    return _VALUE.sub(r"\1…", message)
