"""Arguments of a tool whose JSON schema somebody else has written."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from pydantic import BaseModel, GetJsonSchemaHandler, RootModel, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from referencing import Registry
from referencing.exceptions import Unresolvable

_LONGEST_WORDS = 500  # characters of what is wrong that are told


def arguments_model(schema: dict[str, Any]) -> type[BaseModel]:
    """A model of the objects that fit the schema, which is what a model server is shown of it. Nothing that the schema
    refers to is fetched. Raises `ValueError` for a schema that is none."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"its schema is none: {error.message[:_LONGEST_WORDS]}") from None
    validator = Draft202012Validator(schema, registry=Registry())

    class Arguments(RootModel[dict[str, Any]]):
        @classmethod
        def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
            return dict(schema)

        @model_validator(mode="after")
        def fits(self) -> Arguments:
            try:
                error = best_match(validator.iter_errors(self.root))
            except Unresolvable:
                raise ValueError("the tool's schema refers to something that is not in it") from None
            if error is not None:
                raise ValueError(f"{error.json_path}: {error.message[:_LONGEST_WORDS]}")
            return self

    return Arguments
