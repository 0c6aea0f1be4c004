"""The contestants. Each is opened on a database and then takes turns; all are called in the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

Turn = Callable[[str, str], Awaitable[str]]
"""Takes a device and a message, and returns the reply."""

CONNECTIONS = 20
"""The size of the neighbours' pools. Moorline uses its own default."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A contestant: where its function `name(dsn, model_seconds)` is, and which packages it needs."""

    module: str
    name: str
    packages: tuple[str, ...]
    """The packages that have to be installed, by their names on the package index."""
    durable: bool = True
    """Whether its conversations survive its process."""

    def open(self, dsn: str, model_seconds: float) -> AbstractAsyncContextManager[Turn]:
        """Imports and opens this contestant only."""
        module = import_module(f"{__name__}.{self.module}")
        opened: AbstractAsyncContextManager[Turn] = getattr(module, self.name)(dsn, model_seconds)
        return opened

    @property
    def installed(self) -> bool:
        """Whether all of its packages are installed."""
        return all(map(installed_version, self.packages))


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_POSTGRES = ("langgraph-checkpoint-postgres", "psycopg", "psycopg-pool")
_SWARM = ("langgraph-swarm", "langchain")
_OPENAI_AGENTS = ("openai-agents", "sqlalchemy", "greenlet")

CONTESTANTS = {
    "saver": Contestant(module="graph", name="on_moorline", packages=()),
    "saver_memory": Contestant(module="graph", name="in_memory", packages=(), durable=False),
    "saver_postgres": Contestant(module="graph", name="on_postgres", packages=_POSTGRES),
    "moorline": Contestant(module="moorline", name="opened", packages=()),
    "moorline_tool": Contestant(module="moorline", name="with_tool", packages=()),
    "swarm_memory": Contestant(module="swarm", name="in_memory", packages=_SWARM, durable=False),
    "swarm_postgres": Contestant(module="swarm", name="on_postgres", packages=_SWARM + _POSTGRES),
    "swarm_tool": Contestant(module="swarm", name="with_tool", packages=_SWARM + _POSTGRES),
    "openai_agents": Contestant(module="openai_agents", name="opened", packages=_OPENAI_AGENTS),
}
"""Moorline's own, and the neighbours."""
