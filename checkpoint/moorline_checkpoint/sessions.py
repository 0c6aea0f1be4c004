"""Session locks: which agent answers a device, since when and for how long, by the database's clock."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from moorline_checkpoint import html
from moorline_checkpoint.database import Database
from moorline_checkpoint.ending import Ending, tell_ended
from moorline_checkpoint.errors import InvalidDeviceID
from moorline_checkpoint.packing import pack_text, unpack_text
from moorline_checkpoint.turn import open_turn
from moorline_migrations.errors import ConfigurationError
from moorline_migrations.plain import moment, one_line

DEFAULT_TTL = 86_400
"""Seconds."""

MAX_TTL = 2**31 - 1
"""Seconds; the most that the column holds."""

MAX_AGENT_LENGTH = 50
"""Characters; the most that the column holds."""

BATCH = 500
"""Rows that one statement of a sweep or a listing handles."""

PASSED = "The moment until which a session shall last has passed on the database's clock; give a later one."

logger = logging.getLogger("moorline.session")


@dataclass(frozen=True)
class Session:
    """A live lock. Times are the database's, with a time zone."""

    device_id: str
    active_agent: str
    locked_at: datetime
    expires_at: datetime

    def _repr_html_(self) -> str:
        times = {"since": moment(self.locked_at), "until": moment(self.expires_at)}
        return html.fields({"device": self.device_id, "agent": self.active_agent, **times})


class SessionLocks:
    """The lock of each device. From the moment it expires a lock reads as none, whether swept or not.

    In an open turn of the device the lock is the turn's: it changes, and is logged, with the turn's commit. From
    outside it changes at once, and that stays: what the turn would do to the lock is dropped at its commit.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    database: Database
    default_ttl: int

    async def get_session_lock(self, device_id: str) -> str | None:
        """The agent that holds the device's live lock."""
        agent: str | None
        if turn := open_turn(device_id):
            agent = turn.active_agent
        else:
            with self._watched("retrieval", device_id):
                agent = await self.database.fetchval("get_lock", pack_text(device_id))
        if logger.isEnabledFor(logging.DEBUG):
            shown = agent and one_line(agent)
            logger.debug("Session lock retrieved: %s -> %s", await self.database.log_tag(device_id), shown)
        return agent

    async def set_session_lock(
        self,
        device_id: str,
        agent_key: str,
        *,
        ttl: int | None = None,
        until: datetime | None = None,
        agent_ttl: int | None = None,
    ) -> bool:
        """Gives the agent the device's lock: for `ttl` seconds after each activity, or until a moment on the database's
        clock, whatever happens. Returns True, or raises.

        As long as the lock lasts, that stays, unless a call asks for something else. Without either, the person's TTL
        counts (`set_person_ttl`), then `agent_ttl`, the agent's own, then what the device had last, then the default.
        If the agent has the lock already, its activity is renewed and `locked_at` stays. Raises `ConfigurationError`
        for a TTL that is not a positive whole number, a moment that has passed or has no time zone, both together, or
        an agent name that does not fit; `InvalidDeviceID` if the table's key cannot hold the ID.
        """
        require_agent_name(agent_key)
        for each in (ttl, agent_ttl):
            if each is not None:
                require_ttl(each)
        if until is not None:
            require_moment(until, ttl)
        if turn := open_turn(device_id):
            if until is not None and until <= turn.now:
                raise ConfigurationError(PASSED)
            turn.set_lock(agent_key, ttl, until=until, agent_ttl=agent_ttl)
            return True
        with self._changing("setting", device_id), _fitting():
            ended = await self.database.fetchval(
                "set_lock", pack_text(device_id), agent_key, ttl, until, agent_ttl, self.default_ttl
            )
        if ended is None:
            raise ConfigurationError(PASSED)
        tell_ended(self.database, ended)
        await log_lock(self.database, device_id, agent_key)
        return True

    async def set_person_ttl(self, device_id: str, ttl: int | None) -> None:
        """How many seconds after the last activity the sessions of this person end from now on, the present one
        included, unless the call that set its lock said otherwise; None: as the agent says. Raises `ConfigurationError`
        for a TTL that is not a positive whole number."""
        if ttl is not None:
            require_ttl(ttl)
        with self._changing("setting", device_id), _fitting():
            ended = await self.database.fetchval("set_person_ttl", pack_text(device_id), ttl, self.default_ttl)
        tell_ended(self.database, ended)

    async def clear_session_lock(
        self, device_id: str, *, why: Ending = "cleared", by: str = "", reason: str = "", note: str = ""
    ) -> bool:
        """Drops the lock and nothing else. Returns whether there was a live one. The figures tell `why`; a turn records
        it, and by which agent, for what reason and with which note the session was handed over."""
        if turn := open_turn(device_id):
            return turn.clear_lock(why, by=by, reason=reason, note=note)
        with self._changing("clearing", device_id):
            ended = await self.database.fetchval("clear_lock", pack_text(device_id), why)
        tell_ended(self.database, ended)
        live = ended is not None and json.loads(ended)["why"] != "expired"
        if live:
            await log_lock(self.database, device_id, None)
        return live

    def record_hand_over(self, device_id: str, *, by: str, reason: str, note: str) -> None:
        """Has the device's open turn record that an agent handed over which holds no session."""
        if turn := open_turn(device_id):
            turn.record_hand_over(by=by, reason=reason, note=note)

    async def cleanup_expired_sessions(self) -> int:
        """Drops the expired locks and nothing else; one whose row is locked or whose device has an open turn is left
        for the next time. Returns how many it dropped."""
        cleared, batch = 0, BATCH
        with self._watched("cleanup", None):
            while batch == BATCH:
                ended = [row["session"] for row in await self.database.fetch("expire_locks", BATCH)]
                tell_ended(self.database, *ended)
                batch = len(ended)
                cleared += batch
        logger.info("Cleaned up %d expired sessions", cleared)
        for watcher in self.database.session_watchers:
            watcher.sessions_cleaned_up(cleared)
        return cleared

    async def device_tag(self, device_id: str) -> str:
        """The device's tag in logs and errors: twelve hexadecimal digits, the same in every process that works on this
        database or has the same log key."""
        return await self.database.device_tag(device_id)

    async def get_session(self, device_id: str) -> Session | None:
        """The device's live lock with its times, as committed."""
        with self._watched("retrieval", device_id):
            row = await self.database.fetchrow("get_session", pack_text(device_id))
        return None if row is None else Session(device_id, *row)

    def sessions(self) -> AsyncIterator[Session]:
        """The live sessions, by device ID. No connection is held between two of them."""
        return live_sessions(self.database)

    @contextmanager
    def _changing(self, doing: str, device_id: str) -> Iterator[None]:
        """Like `_watched`; however the block ends, the lock may have changed."""
        try:
            with self._watched(doing, device_id):
                yield
        finally:
            self.database.lock_changed(device_id)

    @contextmanager
    def _watched(self, doing: str, device_id: str | None) -> Iterator[None]:
        """Logs how long the block takes, or the type of the error it fails with; the text of the error may name the
        device. Watchers are told of the error."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:
            logger.error("Session lock %s%s failed: %s", doing, self._whose(device_id), type(error).__name__)  # noqa: TRY400
            for watcher in self.database.session_watchers:
                watcher.session_operation_failed(doing, error)
            raise
        if logger.isEnabledFor(logging.DEBUG):
            spent = (time.perf_counter() - begun) * 1000
            logger.debug("Session lock %s%s took %.1f ms", doing, self._whose(device_id), spent)

    def _whose(self, device_id: str | None) -> str:
        return "" if device_id is None else f" of {self.database.tags.of(device_id)}"


async def log_lock(database: Database, device_id: str, agent: str | None) -> None:
    """Logs that a lock was set, or cleared if there is no agent."""
    if not logger.isEnabledFor(logging.INFO):
        return
    if agent is None:
        logger.info("Session lock cleared: %s", await database.log_tag(device_id))
    else:
        logger.info("Session lock set: %s -> %s", await database.log_tag(device_id), one_line(agent))


def require_ttl(ttl: int) -> None:
    """ConfigurationError unless it is a positive whole number of seconds that the table can hold."""
    if not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 < ttl <= MAX_TTL:
        raise ConfigurationError(f"A session TTL is a positive whole number of seconds up to {MAX_TTL}, not {ttl!r}.")


def require_moment(until: datetime, ttl: int | None) -> None:
    """ConfigurationError unless it is a moment of its own, with a time zone."""
    if ttl is not None:
        raise ConfigurationError("A session lasts for a TTL or until a moment: give `ttl` or `until`, not both.")
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise ConfigurationError(f"`until` is a datetime with a time zone, not {until!r}.")


@contextmanager
def _fitting() -> Iterator[None]:
    """Raises `InvalidDeviceID` if the key of conversation_states cannot hold the ID."""
    try:
        yield
    except asyncpg.DataError as error:
        raise InvalidDeviceID(
            "The column device_id of conversation_states cannot hold this device ID; "
            "use IDs of its type, a UUID or a shorter text, or make the column text."
        ) from error


def require_agent_name(agent: str) -> None:
    """ConfigurationError unless the table can hold the name."""
    if not isinstance(agent, str) or not 0 < len(agent) <= MAX_AGENT_LENGTH or not agent.isprintable():
        raise ConfigurationError(
            f"An agent's name has 1 to {MAX_AGENT_LENGTH} printable characters; {agent!r} does not."
        )


async def live_sessions(database: Database) -> AsyncIterator[Session]:
    """The live sessions, by device ID. No connection is held between two of them."""
    last = None
    while True:
        page = await database.fetch("list_locks", last, BATCH)
        for row in page:
            yield Session(unpack_text(row["device_id"]), row["active_agent"], row["locked_at"], row["expires_at"])
        if len(page) < BATCH:
            return
        last = page[-1]["device_id"]
