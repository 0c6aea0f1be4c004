"""Who is measured. Each is opened on a database and then takes turns; all are asked in the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

Turn = Callable[[str, str], Awaitable[str]]
"""Takes a device and what the person says there, and gives the reply."""

CONNECTIONS = 20
"""In the pools of the neighbours. Moorline keeps to its own default."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Where its function `name(dsn, model_seconds)` is, and what it is made of."""

    module: str
    name: str
    packages: tuple[str, ...]
    """What has to be installed, by the names of the package index."""
    durable: bool = True
    """Whether its conversations outlive its process."""

    def open(self, dsn: str, model_seconds: float) -> AbstractAsyncContextManager[Turn]:
        """Imports it, and nobody else."""
        module = import_module(f"{__name__}.{self.module}")
        opened: AbstractAsyncContextManager[Turn] = getattr(module, self.name)(dsn, model_seconds)
        return opened

    @property
    def installed(self) -> bool:
        """Whether all of its packages are there."""
        return all(map(installed_version, self.packages))


def installed_version(package: str) -> str | None:
    """None for a package that is not there."""
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
    "swarm_memory": Contestant(module="swarm", name="in_memory", packages=_SWARM, durable=False),
    "swarm_postgres": Contestant(module="swarm", name="on_postgres", packages=_SWARM + _POSTGRES),
    "openai_agents": Contestant(module="openai_agents", name="opened", packages=_OPENAI_AGENTS),
}
"""Moorline's own, and the neighbours."""
