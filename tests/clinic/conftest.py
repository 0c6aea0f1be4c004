"""The clinic of docs/clinic as it stands: its app, its model and its payment service, on a fresh database."""

import importlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moorline import Moorline, Reply
from moorline.testing import Script, serve
from moorline_agents.scheduling.catalogue_file import Catalogue
from moorline_agents.scheduling.catalogue_store import CatalogueStore
from moorline_migrations import SHIPPED, Migrations, migrate
from tests.conftest import Templates, fresh_database

FOLDER = Path(__file__).parents[2] / "docs" / "clinic"

Say = Callable[..., Awaitable[Reply]]


@pytest.fixture(scope="session")
def clinic_template(templates: Templates) -> str:
    """A database with the app's tables and catalogue."""

    async def fill(dsn: str) -> None:
        import asyncpg

        sys.path.insert(0, str(FOLDER))
        try:
            await migrate(dsn, components=[*SHIPPED, Migrations("rechnungen", package="rechnungen")])
        finally:
            sys.path.remove(str(FOLDER))
        connection = await asyncpg.connect(dsn)
        now = await connection.fetchval("SELECT clock_timestamp()")
        catalogue = Catalogue.of_yaml((FOLDER / "praxis.yaml").read_text())
        await CatalogueStore(connection, schema="public").replace(catalogue, now=now)
        await connection.close()

    return templates("clinic_template", fill)


@pytest.fixture
def clinic_dsn(server_dsn: str, clinic_template: str) -> Iterator[str]:
    with fresh_database(server_dsn, clinic_template) as dsn:
        yield dsn


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """docs/clinic/rehearsal.py."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("rehearsal")
    del sys.modules["rehearsal"]


@pytest.fixture
def payments(rehearsal: ModuleType) -> Iterator[Any]:
    service = rehearsal.Payments()
    yield service
    service.shutdown()
    service.server_close()


@pytest.fixture
def model(rehearsal: ModuleType) -> Script:
    return Script(rules=rehearsal.model)


@pytest.fixture
async def environment(clinic_dsn: str, model: Script, payments: Any) -> AsyncIterator[dict[str, str]]:
    """What the app is told of where it runs."""
    async with serve(model) as base_url:
        yield {"DATABASE_URL": clinic_dsn, "OPENAI_BASE_URL": base_url, "PAYMENTS_URL": payments.url}


@pytest.fixture
def praxis(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """docs/clinic/praxis.py, unchanged."""
    monkeypatch.syspath_prepend(FOLDER)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield importlib.import_module("praxis")
    del sys.modules["praxis"]


@pytest.fixture
async def app(praxis: ModuleType) -> AsyncIterator[Moorline]:
    moorline: Moorline = praxis.app
    async with moorline:
        yield moorline


@pytest.fixture
def say(app: Moorline) -> Say:
    """What the app answers to one text after another; the last answer."""

    async def said(*texts: str, device: str = "d1") -> Reply:
        for text in texts:
            reply = await app.run(text, {"device_id": device})
        return reply

    return said
