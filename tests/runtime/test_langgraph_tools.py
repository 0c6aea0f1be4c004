"""What LangGraph's own tools show of the manager graph: pictures without a network, and `langgraph dev`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from typer.testing import CliRunner

from moorline import Moorline, Settings, Texts, ToolContext, tool
from moorline.commands import app as commands
from moorline.development import _no_transaction, graph_of
from moorline.testing import Call, ModelReply, ModelRequest, rule_client
from moorline_agents.agent import Agent
from moorline_agents.run import RunContext

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
ALONE = """
import socket, sys
socket.getaddrinfo = socket.socket.connect = None
from moorline.cli import main
sys.argv[0] = "moorline"
main()
"""


class Nothing(BaseModel):
    pass


def run(*arguments: str, missing: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command in a process that cannot connect to anything, and lacks the module that is missing."""
    code = f"import sys\nsys.modules[{missing!r}] = None\n{ALONE}" if missing else ALONE
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_graph_is_printed_and_drawn_without_a_network(tmp_path: Path) -> None:
    file = tmp_path / "manager.png"
    printed, drawn = run("graph"), run("graph", "--png", str(file))
    assert printed.returncode == drawn.returncode == 0, (printed.stderr, drawn.stderr)
    assert printed.stdout.startswith("---\nconfig:")
    assert "scheduling.think" in printed.stdout
    assert "concierge.act" in printed.stdout
    assert file.read_bytes().startswith(PNG)
    assert file.stat().st_size > 10_000


def test_a_picture_needs_an_extra_and_says_which(tmp_path: Path) -> None:
    refused = run("graph", "--png", str(tmp_path / "manager.png"), missing="matplotlib")
    assert refused.returncode == 1
    assert "pip install 'moorline[graph]'" in refused.stderr
    assert run("graph", missing="matplotlib").returncode == 0


def test_a_picture_that_cannot_be_written_is_an_error_with_the_file(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none" / "manager.png"):
        refused = run("graph", "--png", str(file))
        assert refused.returncode == 1
        assert f"{file} cannot be written" in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr


def test_arrows_have_heads_and_long_names_do_not_overlap(tmp_path: Path) -> None:
    from matplotlib.image import imread
    from numpy.lib.stride_tricks import sliding_window_view

    from moorline.graph_png import write_png

    file = tmp_path / "manager.png"
    agents = [Agent(name=name, description="one", instructions="one") for name in ("x" * 50, "y" * 50)]
    write_png(graph_of(app(*agents)).get_graph(), file)
    red, _, blue, _ = imread(file).transpose(2, 0, 1)
    brown = (red > 0.6) & (blue < 0.3)
    assert sliding_window_view(brown, (9, 9)).sum(axis=(2, 3)).max() > 30, "a line alone has fewer"
    filled = (abs(red - 0xEE / 255) < 0.01) & (abs(blue - 0xFA / 255) < 0.01)
    columns = filled.sum(axis=0) > 5
    assert (columns[1:] & ~columns[:-1]).sum() == 3, "one for the router, one where agents think, one where they act"


def test_the_server_can_say_what_the_input_is() -> None:
    schema = graph_of(app(Agent(name="one", description="one", instructions="one"))).get_input_jsonschema()
    assert schema["properties"]["texts"]["items"] == {"type": "string"}


def app(*agents: Agent) -> Moorline:
    return Moorline(Settings(database_url="postgresql://none.invalid/none"), agents=agents)


def test_the_picture_shows_every_node_of_the_graph(tmp_path: Path) -> None:
    from moorline.graph_png import _places

    agents = [Agent(name=f"a{n}", description="one", instructions="one") for n in range(9)]
    graph = graph_of(app(*agents)).get_graph()
    places = _places(graph)
    assert places.keys() == graph.nodes.keys()
    assert len(set(places.values())) == len(graph.nodes)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The graph that `langgraph.json` names, loaded from its file as LangGraph's server does it."""
    monkeypatch.delenv("MOORLINE_APP", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    described = json.loads((ROOT / "langgraph.json").read_text())
    path, _, attribute = described["graphs"]["manager"].partition(":")
    spec = spec_from_file_location("langgraph_json_manager", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


async def test_langgraph_dev_runs_the_manager_graph_without_a_database(named: Any) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t1"}}
    said = []
    for text in ("hello", "I want to schedule a haircut"):
        graph = named(config).copy({"checkpointer": saver})  # as the server gives it its own
        await graph.ainvoke({"texts": [text]}, config, context={})
        state = (await graph.aget_state(config)).values
        said.append(state)
    assert said[0]["concierge.history"][-1]["role"] == "assistant"
    assert said[1]["scheduling.history"][-1]["role"] == "assistant"
    assert {"route", "scheduling.think", "concierge.think"} <= named(config).get_graph().nodes.keys()
    assert named(config).checkpointer is None


async def test_the_manager_graph_of_development_is_put_together_as_the_app_s_own() -> None:
    models: list[str] = []

    def model(request: ModelRequest) -> ModelReply:
        models.append(request.model)
        if request.said[-1] == "pay":
            return ModelReply(calls=(Call(name="pay"),))
        return ModelReply(text="I see. " + "and so on " * 30)

    @tool(effect="outside", confirm="Pay?")
    async def pay(_: Nothing, context: ToolContext) -> str:
        """Pays."""
        return "paid"

    settings = Settings(database_url="postgresql://none.invalid/none", summary_model="small", prompt_tokens=2_000)
    desk = Agent(name="desk", description="a desk", instructions="You are at the desk.", tools=[pay])
    texts = Texts(yes="ja", no="nein")
    app = Moorline(settings, agents=[desk], client=lambda: rule_client(model), texts=texts)
    graph = graph_of(app).copy({"checkpointer": InMemorySaver()})
    config: RunnableConfig = {"configurable": {"thread_id": "t1"}}
    for text in ("hello " * 50,) * 20:
        await graph.ainvoke({"texts": [text]}, config, context=context())
    assert "small" in models
    asked = await graph.ainvoke({"texts": ["pay"]}, config, context=context(), version="v2")
    assert asked.interrupts[0].value["options"] == ["ja", "nein"]


def context() -> RunContext:
    """What a run of development gets."""
    return RunContext(tools=ToolContext(device_id="t1", now=datetime.now(UTC), values={}, transaction=_no_transaction))


def test_the_command_is_among_the_others() -> None:
    assert "graph" in CliRunner().invoke(commands, ["--help"]).output
