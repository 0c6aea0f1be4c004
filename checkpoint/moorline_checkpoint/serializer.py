"""Which types are rebuilt from stored rows. A row may come from somebody who can write to the database but must not be
able to run code here."""

from __future__ import annotations

import sys
from dataclasses import is_dataclass
from enum import Enum
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

LANGCHAIN = frozenset(
    ("langchain_core.agents", name) for name in ("AgentAction", "AgentActionMessageLog", "AgentFinish")
)
"""Safe types of LangChain's that LangGraph's own list leaves out."""


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, which rebuilds the types that LangGraph knows to be safe, those that are `allowed`, and
    classes that are only data: enums, named tuples, and those dataclasses and pydantic models that run no code of their
    own when an object is made. Such a class must have been imported already; a row imports nothing.

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
    """Whether making an object of the class runs none of the class's own code."""
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type):
        return False
    if issubclass(found, tuple):
        return hasattr(found, "_fields") and _is_generated(found.__new__)
    if issubclass(found, BaseModel):
        return not (found.__pydantic_custom_init__ or found.__pydantic_post_init__ or _validates(found))
    if is_dataclass(found):
        return not hasattr(found, "__post_init__") and _is_generated(found.__init__)
    return issubclass(found, Enum)


def _validates(model: type[BaseModel]) -> bool:
    own = model.__pydantic_decorators__
    return bool(own.validators or own.field_validators or own.root_validators or own.model_validators)


def _is_generated(method: Any) -> bool:
    """Whether `dataclass` or `namedtuple` made the method, from text."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_filename == "<string>"
