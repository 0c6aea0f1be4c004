"""The dashboard shows what Prometheus has: each of its queries, asked of a real Prometheus, has an answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from moorline.errors import MoorlineError
from moorline.telemetry import MetricsApp
from moorline_agents.transport import ModelReply, ModelRequest
from tests.turns.runtimes import World, execute, say

from .app import counted
from .prometheus import Prometheus, prometheus
from .test_metrics import Measured, measured

DASHBOARD: dict[str, Any] = json.loads(files("moorline.telemetry").joinpath("dashboard.json").read_text())
NAMES = re.compile(r"moorline_\w+")


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> dict[str, str]:
    """By panel and legend, as Grafana would send them."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in panels()
        for target in panel["targets"]
    }


async def test_every_query_of_the_dashboard_has_an_answer(world_dsn: str, tmp_path: Path) -> None:
    world = World()
    world.refused.add("moon")
    async with measured(world_dsn, failing, world=world) as here, _listening(here.app) as address:
        with prometheus(address, tmp_path) as asked:
            # A rate needs a scrape from before: what is counted first is from before that, as in a process that starts.
            await _everything_happens(here, 1)
            await asyncio.to_thread(asked.wait, "sum(moorline_turns_total)", 5)
            await _everything_happens(here, 2)
            await asyncio.to_thread(asked.wait, "sum(moorline_turns_total)", 10)
            found = await asyncio.to_thread(lambda: {where: asked.query(query) for where, query in queries().items()})
            assert [where for where, series in found.items() if not series] == []
            await asyncio.to_thread(_figures_are_right, asked)
    nan = [where for where, series in found.items() if any(each["value"][1] == "NaN" for each in series)]
    assert nan == []


def _figures_are_right(asked: Prometheus) -> None:
    assert asked.value('sum(moorline_turns_total{outcome="replayed"})') == 2
    assert asked.value('sum(moorline_tokens_total{kind="input"})') == 2 * (1 + 2 + 1) * 7
    asked.wait("max by (agent) (moorline_sessions)", 2)
    assert asked.value('sum(moorline_session_operations_failed_total{operation="retrieval"})') == 2
    assert asked.value("min(moorline_database_up)") == 1


async def test_every_metric_of_ours_is_on_the_dashboard_and_explained(world_dsn: str) -> None:
    world = World()
    world.refused.add("moon")
    async with measured(world_dsn, failing, world=world) as here:
        await _everything_happens(here, 1)
        seen = await here.scrape()
    told = {re.sub(r"_(total|bucket|count|sum|gcount|gsum|created)$", "", name) for name in seen.names}
    ours = {name for name in told if name.startswith("moorline_")}
    shown = {
        re.sub(r"_(total|bucket|count|sum)$", "", name) for query in queries().values() for name in NAMES.findall(query)
    }
    assert ours == shown
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    assert {name for name in ours if f"`{name}" not in page} == set()


def test_every_panel_says_what_it_shows() -> None:
    assert all(panel["title"] and panel["description"].endswith(".") and panel["targets"] for panel in panels())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(places) == len({*places})
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def failing(request: ModelRequest) -> ModelReply:
    if request.messages[-1]["content"] == "fail":
        raise LookupError
    return counted(request)


async def _everything_happens(here: Measured, run: int) -> None:
    """One of each that can happen."""
    moorline, device = here.moorline, f"d{run}"
    await say(moorline, "hello", "m1", device)
    await say(moorline, "hello", "m1", device)
    await say(moorline, "ring moon", "m2", device)
    with pytest.raises(MoorlineError):
        await say(moorline, "fail", "m3", device)
    await moorline._backend.saver.cleanup_expired_sessions()
    await moorline.set_session_lock("other", "desk")
    await moorline.clear_session_lock("other")
    await _without_states(moorline, device)
    await say(moorline, "fail again", "m4", device)


async def _without_states(moorline: Any, device: str) -> None:
    dsn = moorline.settings.database_url
    await execute(dsn, "ALTER TABLE conversation_states RENAME TO gone")
    with pytest.raises(MoorlineError):
        await moorline.session(device)
    await execute(dsn, "ALTER TABLE gone RENAME TO conversation_states")


@asynccontextmanager
async def _listening(app: MetricsApp) -> AsyncIterator[str]:
    """The app on a free port of this machine."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
