"""One word for each thing: identifiers that were given up stay away from the modules in which they stood."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GIVEN_UP = {
    "checkpoint/moorline_checkpoint/batcher.py": ("Groups", "_Member", "group"),
    "checkpoint/moorline_checkpoint/head_cache.py": ("KnownHeads", "known", "held", "keep", "brought"),
    "checkpoint/moorline_checkpoint/checkpoint_store.py": ("Groups", "Store"),
    "checkpoint/moorline_checkpoint/reading.py": ("brought", "_brought", "Store"),
    "checkpoint/moorline_checkpoint/saver.py": ("Store",),
    "checkpoint/moorline_checkpoint/queue.py": ("SetAside", "Incoming"),
    "checkpoint/moorline_checkpoint/messages.py": ("Incoming", "Message", "context"),
    "checkpoint/moorline_checkpoint/turn.py": ("brought", "settle", "Message", "context"),
    "checkpoint/moorline_checkpoint/turns.py": (
        *("Groups", "KnownHeads", "brought", "told", "SetAside", "dead", "revive", "Incoming", "Message", "context"),
        *("left_behind", "begin_left_behind", "LEASE", "WAITER"),
    ),
    "runtime/moorline/waiters.py": ("Lanes", "Lane", "Place", "place", "WAITER"),
    "runtime/moorline/background.py": ("let_go",),
    "runtime/moorline/backend.py": ("Store", "open_store"),
    "runtime/moorline/commands.py": ("open_store", "store", "dead_letter", "retry_dead"),
    "runtime/moorline/context.py": ("Request", "check_request", "incoming", "again"),
    "runtime/moorline/execution.py": ("say", "Say", "told", "let_go", "_let_go"),
    "runtime/moorline/journal.py": ("let_go",),
    "runtime/moorline/manager.py": ("Compilable", "Surroundings", "surroundings", "Peer", "peers"),
    "runtime/moorline/router.py": ("Peer", "peers"),
    "runtime/moorline/runtime.py": (
        *(
            "Compilable",
            "Lanes",
            "Say",
            "say",
            "Surroundings",
            "Store",
            "_store",
            "told",
            "let_go",
            "dead",
            "retry_dead",
        ),
        *("Request", "Incoming", "SetAside", "lane"),
    ),
    "runtime/moorline/turn_queue.py": ("Lanes", "lane", "place", "Say", "say", "told", "let_go", "Request", "incoming"),
    "runtime/moorline/stateless.py": ("Say", "say", "Request", "request"),
    "agents/moorline_agents/run.py": ("Surroundings", "Peer", "peers", "say"),
    "agents/moorline_agents/agent.py": (
        *("Surroundings", "surroundings", "Peer", "peers", "Part", "part", "heard", "HISTORY_HEARD", "say"),
    ),
    "agents/moorline_agents/loop.py": ("Surroundings", "surroundings", "Peer", "peers", "Part", "part", "heard", "say"),
    "agents/moorline_agents/history.py": ("Part", "heard", "HISTORY_HEARD"),
    "agents/moorline_agents/graph_agent.py": ("Surroundings", "surroundings"),
    "agents/moorline_agents/scheduling/booking.py": ("Desk", "Order", "order", "desk", "Store", "store"),
    "agents/moorline_agents/scheduling/repository.py": ("Store",),
    "agents/moorline_agents/scheduling/tools.py": ("Desk", "Order", "desk", "order", "Store", "store"),
}
"""The module in which a word stood, by the name that the module has now."""

MOVED = (
    "agents/moorline_agents/answers.py",
    "agents/moorline_agents/failures.py",
    "agents/moorline_agents/scheduling/desk.py",
    "agents/moorline_agents/scheduling/store.py",
    "checkpoint/moorline_checkpoint/groups.py",
    "checkpoint/moorline_checkpoint/heads.py",
    "checkpoint/moorline_checkpoint/storing.py",
    "runtime/moorline/lanes.py",
    "runtime/moorline/outcome.py",
    "runtime/moorline/shipped.py",
    "runtime/moorline/store.py",
    "runtime/moorline/streaming.py",
)


def identifiers(module: Path) -> set[str]:
    """Every name that the module defines or uses; words of its texts and comments do not count."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found |= {name, other or name}
    return found


@pytest.mark.parametrize("module", GIVEN_UP)
def test_a_word_that_was_given_up_is_not_used_again(module: str) -> None:
    assert not identifiers(ROOT / module) & set(GIVEN_UP[module])


@pytest.mark.parametrize("module", MOVED)
def test_a_module_that_was_renamed_has_not_come_back(module: str) -> None:
    assert not (ROOT / module).exists()
