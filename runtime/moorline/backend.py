"""The database of a runtime: the one in the settings, or the embedded one, ready for turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from moorline.embedded.roles import EmbeddedDatabase
from moorline.errors import StoreUnavailable
from moorline.settings import Settings
from moorline_checkpoint.database import Database
from moorline_checkpoint.device_key import DeviceKey
from moorline_checkpoint.files import Files
from moorline_checkpoint.people import People
from moorline_checkpoint.replica import Readers
from moorline_checkpoint.revocations import Revocations
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.turns import Turns
from moorline_checkpoint.watching import UNTRACED, SessionWatcher, Tracing
from moorline_migrations.components import CORE, SCHEDULING, Migrations
from moorline_migrations.runner import check

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from moorline.cache.server import RedisServer
    from moorline.cache.writer import SessionWriter

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The checkpointer and the turns of one database, the key under which it has devices, which tokens of theirs it
    refuses, where they lead, and the files of their conversations."""

    saver: DeviceCheckpointer
    turns: Turns
    key: DeviceKey
    revocations: Revocations
    people: People
    files: Files
    readers: Readers
    """Where reads go that a replica may answer."""
    replica_turns: Turns | None
    """The turns as the replica has them."""
    writer: SessionWriter | None = None
    """Writes sessions to Redis, if there is one."""

    async def close(self) -> None:
        """Closes the connections of the running event loop."""
        if self.writer is not None:
            await self.writer.close()
        await self.readers.close()
        await self.saver.close()

    async def read(
        self, ask: Callable[[Turns], Awaitable[T]], *, question: Hashable | None = None
    ) -> tuple[T, datetime | None]:
        """`Readers.read` for what the turns of a database know."""

        async def on(database: Database) -> T:
            replica = None if database is self.saver.database else self.replica_turns
            return await ask(replica or self.turns)

        return await self.readers.read(on, question=question)


async def open_backend(
    settings: Settings,
    *,
    components: Sequence[Migrations] = (CORE,),
    serde: SerializerProtocol | None = None,
    tracing: Tracing = UNTRACED,
    session_watchers: Sequence[SessionWatcher] = (),
) -> Backend:
    """Raises `SchemaMismatch`, which names the command to run, if the components' tables are not what this code needs.

    The embedded database is Moorline's own, so it is migrated here; if scheduling is among the components, it also gets
    the services and opening hours of the demonstration.
    """
    dsn, schema = settings.database_url, settings.schema_name
    redis = None if settings.redis_url is None else _redis_server(settings.redis_url)
    if dsn is None:
        embedded = await EmbeddedDatabase.open(settings.data_folder, schema=schema)
        await embedded.migrate(components)
        if SCHEDULING in components:
            await embedded.seed()
        dsn = embedded.app
    saver = DeviceCheckpointer.from_conn_string(
        dsn,
        schema=schema,
        serde=serde,
        default_ttl=settings.default_session_ttl,
        pool_size=settings.pool_max,
        statement_cache_size=settings.statement_cache_size,
        log_key=settings.log_key.get_secret_value() if settings.log_key else None,
    )
    saver.database.tracing, saver.database.session_watchers = tracing, session_watchers
    key = DeviceKey(saver.database)
    try:
        async with saver.database.connection() as connection:
            await check(connection, schema=schema, components=components)
        await saver.database.prepare_tags()
        await key.find_out()
    except StoreUnavailable:
        if settings.on_store_down == "fail":
            await saver.close()
            raise
    except BaseException:
        await saver.close()
        raise
    turns_on = partial(
        Turns,
        default_ttl=settings.default_session_ttl,
        keep_turns=settings.keep_turns,
        queue_max=settings.queue_max,
    )
    replica = replica_of(settings)
    revocations = Revocations(saver.database)
    people = People(saver.database, key=revocations.key, default_ttl=settings.default_session_ttl)
    writer = _writing(redis, saver.database, revocations)
    return Backend(
        saver=saver,
        turns=turns_on(saver.database),
        key=key,
        revocations=revocations,
        people=people,
        files=Files(saver.database, most=settings.files_kept_max),
        readers=Readers(saver.database, replica, max_lag=settings.replica_max_lag),
        replica_turns=None if replica is None else turns_on(replica),
        writer=writer,
    )


def replica_of(settings: Settings) -> Database | None:
    """The replica that the settings name; connections are made when it is read."""
    if settings.replica_url is None:
        return None
    return Database(
        settings.replica_url,
        schema=settings.schema_name,
        pool_size=settings.pool_max,
        statement_cache_size=settings.statement_cache_size,
    )


def _redis_server(url: str) -> RedisServer:
    from moorline.cache.server import RedisServer  # noqa: PLC0415 - only if it is used

    return RedisServer(url, instead="readers of sessions ask PostgreSQL until it does again")


def _writing(server: RedisServer | None, database: Database, revocations: Revocations) -> SessionWriter | None:
    if server is None:
        return None
    from moorline.cache.writer import SessionWriter  # noqa: PLC0415 - only if it is used

    writer = SessionWriter(server, database, revocations)
    database.lock_watchers = (writer,)
    return writer
