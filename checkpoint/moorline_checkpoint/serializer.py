"""Which types are rebuilt from stored rows. A row may come from somebody who can write to the database but must not be
able to run code here."""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.jsonplus import (
    JsonPlusSerializer,
    _create_msgpack_ext_hook,
    _normalize_module_keys,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, ...]
"""The module and the name of a class."""

_AGENT_STEPS = ("AgentAction", "AgentActionMessageLog", "AgentFinish")
LANGCHAIN = frozenset(("langchain_core.agents", name) for name in _AGENT_STEPS)
"""Safe types of LangChain's that LangGraph's own list leaves out."""

_CONTAINERS = (list, dict, set, tuple, frozenset, str, int, float, bool, bytes)
"""What may make a field's default."""


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, which rebuilds the types that LangGraph knows to be safe, those that are `allowed`, and
    classes that are only data: enums, named tuples, and those dataclasses and pydantic models in which no code of
    anybody's runs when an object is made: no validator, no `__post_init__`, nothing of the kind in a nested model. Such
    a class must have been imported already; a row imports nothing.

    Anything else comes back as the plain data that it was made of.
    """

    def __init__(self, allowed: Iterable[Key | type] = ()) -> None:
        super().__init__(allowed_msgpack_modules=None)
        self._allowed = _Allowed(LANGCHAIN | _normalize_module_keys(allowed))
        self._allowed_msgpack_modules = self._allowed
        self._unpack_ext_hook = _create_msgpack_ext_hook(self._allowed)

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[Key | type]) -> JsonPlusSerializer:
        """A serializer that also rebuilds these types; LangGraph asks for it with the types in a graph's schemas."""
        extra = _normalize_module_keys(extra_allowlist)
        return self if extra.issubset(frozenset(self._allowed)) else StrictSerializer({*self._allowed, *extra})


class _Allowed(set[Key]):
    """The keys that are allowed by name, and those of all classes that are only data."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (isinstance(key, tuple) and _is_data(*key))


def _is_data(module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and _is_inert(found)


@lru_cache(1000)
def _is_inert(kind: type) -> bool:
    """Whether making an object of the class runs no code but Python's and pydantic's."""
    if issubclass(kind, Enum):
        return kind._missing_.__module__ == "enum"
    if issubclass(kind, tuple):
        return hasattr(kind, "_fields") and _is_generated(kind.__new__) and kind.__init__ is object.__init__
    if issubclass(kind, BaseModel):
        return "model_construct" not in _own_names(kind, BaseModel) and not _runs_code(kind.__pydantic_core_schema__)
    if not is_dataclass(kind) or not _is_generated(kind.__init__):
        return False
    return not {"__new__", "__post_init__", "__setattr__"} & _own_names(kind, object) and all(
        field.default_factory in (MISSING, *_CONTAINERS) and not hasattr(vars(kind).get(field.name), "__set__")
        for field in fields(kind)
    )


def _own_names(kind: type, base: type) -> set[str]:
    """What the class and its bases define besides `base`, without what a frozen dataclass generates."""
    classes = [each for each in kind.__mro__ if each not in base.__mro__]
    return {name for each in classes for name, value in vars(each).items() if not _is_generated(value)}


def _is_generated(method: Any) -> bool:
    """Whether `dataclass` or `namedtuple` made the method, from text. The file alone does not tell: all of a program
    that is run with `python -c` is from text."""
    code = getattr(method, "__code__", None)
    return (
        code is not None
        and code.co_filename == "<string>"
        and (code.co_qualname == "<lambda>" or code.co_qualname.startswith("__create_fn__."))
    )


def _runs_code(schema: Any) -> bool:
    """Whether validating by the schema that pydantic made of a model calls functions of a class."""
    if isinstance(schema, list | tuple):
        return any(map(_runs_code, schema))
    if not isinstance(schema, dict):
        return False
    return (
        str(schema.get("type")).startswith("function")
        or bool(schema.get("custom_init") or schema.get("post_init") or schema.get("missing"))
        or schema.get("default_factory", list) not in _CONTAINERS
        or any(_runs_code(value) for key, value in schema.items() if key not in ("serialization", "metadata"))
    )
