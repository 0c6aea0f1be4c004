"""What an MCP server says of its tools, and what of that somebody has accepted, in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from mcp_types import Tool as ServerTool

Told = Mapping[str, Any]

_LONGEST_PART = 1_000  # characters of a description, a schema or hints that a message quotes


def told(tool: ServerTool) -> Told:
    """All that a model, or a runtime that trusts hints, is told of the tool."""
    hints = None if tool.annotations is None else tool.annotations.model_dump(mode="json", exclude_none=True)
    parts = {"title": tool.title, "description": tool.description, "inputSchema": tool.input_schema, "hints": hints}
    return {"name": tool.name, **{name: part for name, part in parts.items() if part is not None}}


def read_accepted(file: Path) -> dict[str, Told]:
    """What the file accepts, by the server's names; nothing if there is no file. Raises `ValueError` for another
    file."""
    if not file.exists():
        return {}
    try:
        return {tool["name"]: tool for tool in json.loads(file.read_bytes())}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is no list of accepted tools; `MCPTools.accept` writes one.") from error


def write_accepted(file: Path, tools: Sequence[Told]) -> None:
    """In ASCII, so that no character can hide."""
    file.write_text(f"{json.dumps(sorted(tools, key=lambda tool: tool['name']), indent=2)}\n")


def difference(accepted: Told, now: Told) -> str:
    """What of it has changed, the old beside the new, on one line."""
    parts = [name for name in (*accepted, *now) if accepted.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(accepted, name)} and is {_short(now, name)}" for name in dict.fromkeys(parts))


def _short(tool: Told, part: str) -> str:
    text = json.dumps(tool.get(part))
    return text if len(text) <= _LONGEST_PART else f"{text[:_LONGEST_PART]}…"
