"""Opening a `Moorline`: its parts, put together on a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from moorline.answers import Answers
from moorline.backend import Backend, open_backend
from moorline.background import Background
from moorline.execution import Execution
from moorline.file_links import Fetcher
from moorline.manager import AgentProtocol, Manager, StartOver
from moorline.observers import Observer, Observers
from moorline.pool_watch import PoolWatch
from moorline.receiving import Receiving
from moorline.reply import Reply
from moorline.results import outputs_of
from moorline.settings import Settings
from moorline.stops import Stops
from moorline.telling import telling
from moorline.texts import Texts
from moorline.tracing import Tracing
from moorline.turn_queue import TurnQueue
from moorline_agents.model import Model
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.watching import SessionWatcher
from moorline_migrations.components import Migrations

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a `Moorline` holds while it is open."""

    backend: Backend
    receiving: Receiving
    queue: TurnQueue
    observers: Observers
    pool_watch: PoolWatch


async def open_parts(
    settings: Settings,
    *,
    agents: Sequence[AgentProtocol],
    components: Sequence[Migrations],
    model: Model,
    start_over: StartOver,
    manager_on: Callable[[DeviceCheckpointer], Manager],
    texts: Texts,
    serde: SerializerProtocol | None,
    observers: Sequence[Observer],
    tracing: Tracing,
    background: Background,
    on_recovered: Callable[[str, Reply], None] | None,
) -> Opened:
    """Raises `ConfigurationError`, `SchemaMismatch` or `StoreUnavailable` if turns could not run; nothing is open
    then."""
    session_watchers: list[Any] = [each for each in observers if isinstance(each, SessionWatcher)]
    backend = await open_backend(
        settings, components=components, serde=serde, tracing=tracing, session_watchers=session_watchers
    )
    try:
        manager = manager_on(backend.saver)
        graph = manager.compile()
        answers = Answers(
            graph=graph,
            turns=backend.turns,
            agents={name: agent for agent in agents for name in (*agent.aliases, agent.name)},
            model=model,
            start_over=start_over,
            texts=texts,
            check_timeout=settings.tool_timeout,
        )
        execution = Execution(
            memory=manager.memory,
            turns=backend.turns,
            files=backend.files,
            stops=Stops(backend.turns, background, text=texts.stopped),
            background=background,
            answers=answers,
            tune_gc=settings.tune_gc,
        )
    except BaseException:
        await backend.close()
        raise
    watching = Observers(observers)
    queue = TurnQueue(
        turns=backend.turns,
        execution=execution,
        background=background,
        on_recovered=on_recovered,
        recovering=partial(telling, watching.hears),
        on_store_down=settings.on_store_down,
        queue_max=settings.queue_max,
        turn_timeout=settings.turn_timeout,
        notices={"joined": texts.joined, "closed": texts.closed},
        outputs=outputs_of(agents),
        tracing=tracing,
    )
    pool_watch = PoolWatch(backend.saver.database, observers)
    fetcher = Fetcher(largest=settings.file_max, seconds=settings.file_timeout)
    receiving = Receiving(files=backend.files, fetcher=fetcher, settings=settings)
    return Opened(backend=backend, receiving=receiving, queue=queue, observers=watching, pool_watch=pool_watch)
