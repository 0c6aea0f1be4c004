"""Arguments of a tool whose JSON schema somebody else has written.

The model is shown the schema; whether arguments fit it is left to the server, which has to check them anyway. Matching
them here would run patterns, and take steps, that a stranger has chosen.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel, GetJsonSchemaHandler, RootModel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_LONGEST_WORDS = 500  # characters of what is wrong that are told

# What is not taken beside the `type` of a tool's arguments, by OpenAI's servers and Anthropic's.
_NOT_ON_TOP = frozenset({"allOf", "anyOf", "oneOf", "not", "enum"})

_META = Draft202012Validator(Draft202012Validator.META_SCHEMA)


def arguments_model(schema: dict[str, Any]) -> type[BaseModel]:
    """A model of any JSON object, of which a model server is shown the schema. Raises `ValueError` for a schema that is
    none, or that refers to something outside of it. It takes up to two seconds for 32 KB."""
    for error in _META.iter_errors(schema):
        raise ValueError(f"its schema is none: {error.message[:_LONGEST_WORDS]}")
    if _refers_elsewhere(schema):
        raise ValueError("its schema refers to something that is not in it")
    shown = {name: value for name, value in schema.items() if name not in _NOT_ON_TOP}

    class Arguments(RootModel[dict[str, Any]]):
        @classmethod
        def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
            return dict(shown)

    return Arguments


def _refers_elsewhere(schema: Any) -> bool:
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            reference = part.get("$ref", part.get("$dynamicRef", "#"))
            if isinstance(reference, str) and not reference.startswith("#"):
                return True
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return False
