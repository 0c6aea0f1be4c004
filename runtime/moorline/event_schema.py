"""The JSON schema of events: `python -m moorline.event_schema > docs/events.schema.json`."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from moorline.events import Event
from moorline.reply import Interrupt, Reply
from moorline_agents.messages import Usage
from moorline_migrations.errors import MoorlineError

_TEXT, _COUNT, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_NO_TEXT = {"type": ["string", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


_SHARED: Mapping[type, dict[str, Any]] = MappingProxyType(
    {
        Interrupt: _object(id=_TEXT, value={}),
        MoorlineError: _object(type=_TEXT, message=_TEXT, retryable=_FLAG, message_id=_NO_TEXT, effects_kept=_FLAG),
        Reply: _object(
            message_id=_NO_TEXT,
            text=_TEXT,
            agent=_NO_TEXT,
            turn_no=_COUNT,
            replayed=_FLAG,
            handoffs={"type": "array", "items": _TEXT},
            interrupt={"anyOf": [_ref("Interrupt"), {"type": "null"}]},
            usage=_ref("Usage"),
            notice=_NO_TEXT,
            recovered={"type": "array", "items": _ref("Reply")},
            degraded=_FLAG,
            output={"type": ["object", "null"]},
        ),
        Usage: _object(prompt_tokens=_COUNT, completion_tokens=_COUNT),
    }
)
"""What several events hold, with a form of its own in JSON."""


def event_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of what `to_json` of any event returns. `#/$defs` has each type by the name of its
    class, with `Reply`, `Interrupt`, `Usage` and `MoorlineError`."""
    kinds = get_args(Event)
    shared = {kind.__name__: schema for kind, schema in _SHARED.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "An event of a turn. A reader skips types and fields that it does not know.",
        "oneOf": [_ref(kind.__name__) for kind in kinds],
        "$defs": {kind.__name__: _schema(kind) for kind in kinds} | shared,
    }


def _schema(kind: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    own = {each.name: _field(hints[each.name]) for each in fields(kind) if each.name != "device_id"}
    return {"description": inspect.getdoc(kind), **_object(type={"const": kind.type}, **own)}


def _field(hint: Any) -> dict[str, Any]:
    return _ref(hint.__name__) if hint in _SHARED else TypeAdapter(hint).json_schema()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(event_schema(), indent=2) + "\n")
