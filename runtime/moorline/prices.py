"""Prices: what the tokens of a model cost, as a team has agreed with whoever serves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MILLION = 1_000_000

_Amount = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Price(BaseModel):
    """The price of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: _Amount
    """Of a million tokens that the model is shown."""
    output: _Amount
    """Of a million tokens that it writes."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"

    def of(self, input_tokens: int, output_tokens: int) -> Decimal:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / MILLION


Prices = Mapping[str, Price]
"""By the name of the model."""

_PRICES: TypeAdapter[dict[str, Price]] = TypeAdapter(dict[str, Price])
_LOOKS = 'must look like {"gpt-4.1-mini": {"input": 0.4, "output": 1.6, "currency": "USD"}}, per million tokens'


def prices_in(value: Any) -> Any:
    """A table of prices, from JSON if it is text. ValueError, which names the model, unless it can be one."""
    try:
        table = json.loads(value, parse_float=Decimal) if isinstance(value, str) else value
        return _PRICES.validate_python(table)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = "".join(f"{part}: " for part in fault["loc"])
        raise ValueError(f"{where}{fault['msg']}; it {_LOOKS}") from None
    except (ValueError, RecursionError):
        raise ValueError(_LOOKS) from None
