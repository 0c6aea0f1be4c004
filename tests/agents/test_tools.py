"""How tools are defined, and what happens to the arguments that a model writes."""

import copy
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, Field, RootModel

from moorline_agents.tools import Connection, Tool, ToolContext, ToolRefused, tool


class Filling(BaseModel):
    name: str


class Order(BaseModel):
    """An order."""

    size: int = Field(ge=1, le=3, description="1 to 3.")
    filling: Filling | None = None


class Nothing(BaseModel):
    pass


class Listed(RootModel[list[int]]):
    pass


@tool(effect="outside", idempotent=True)
async def order_pie(arguments: Order, context: ToolContext) -> dict[str, Any]:
    """Order a pie."""
    return {"size": arguments.size, "for": context.device_id}


@asynccontextmanager
async def no_transaction() -> AsyncIterator[Connection]:
    raise AssertionError("this tool needs no database")
    yield


CONTEXT = ToolContext(device_id="device-1", now=datetime(2026, 6, 1, tzinfo=UTC), values={}, transaction=no_transaction)


async def test_a_tool_takes_name_and_description_from_its_function() -> None:
    assert (order_pie.name, order_pie.description) == ("order_pie", "Order a pie.")
    assert (order_pie.effect, order_pie.idempotent) == ("outside", True)


async def test_a_tool_may_be_named_otherwise() -> None:
    async def order(arguments: Order, context: ToolContext) -> None:
        """Not told."""

    named = tool(name="pie-2", description="Told.")(order)
    assert (named.name, named.description, named.effect, named.idempotent) == (
        "pie-2",
        "Told.",
        "none",
        False,
    )


def test_the_schema_is_an_entry_of_the_tools_list_and_closes_every_object() -> None:
    function = order_pie.schema["function"]
    assert order_pie.schema["type"] == "function"
    assert (function["name"], function["description"]) == ("order_pie", "Order a pie.")
    parameters = function["parameters"]
    assert parameters["type"] == "object"
    assert parameters["required"] == ["size"]
    assert parameters["additionalProperties"] is False
    assert parameters["$defs"]["Filling"]["additionalProperties"] is False
    assert parameters["properties"]["size"]["description"] == "1 to 3."
    assert '"title"' not in json.dumps(order_pie.schema)
    assert order_pie.schema is order_pie.schema


def test_a_tool_without_arguments_still_has_an_object_for_them() -> None:
    async def ping(arguments: Nothing, context: ToolContext) -> str:
        """Ping."""
        return "pong"

    parameters = tool()(ping).schema["function"]["parameters"]
    assert parameters == {"type": "object", "properties": {}, "additionalProperties": False}


async def test_good_arguments_reach_the_function_with_the_context() -> None:
    assert await order_pie.call('{"size": 2, "filling": {"name": "plum"}}', CONTEXT) == {
        "size": 2,
        "for": "device-1",
    }


@pytest.mark.parametrize("raw", ["", "  \n", "{}"])
async def test_no_text_counts_as_no_arguments(raw: str) -> None:
    @tool()
    async def ping(arguments: Nothing, context: ToolContext) -> str:
        """Ping."""
        return "pong"

    assert await ping.call(raw, CONTEXT) == "pong"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("{", "Invalid JSON"),
        ("pie please", "Invalid JSON"),
        ("[]", "object"),
        ("null", "object"),
        ('"{}"', "object"),
        ("[" * 100_000, "Invalid JSON"),
        ('{"size": "\ud800"}', "unicode"),
        ("{}", "size: Field required"),
        ('{"size": 4}', "size: Input should be less than or equal to 3"),
        ('{"size": "big"}', "size: Input should be a valid integer"),
        ('{"size": 1, "colour": "red"}', "colour: Extra inputs are not permitted"),
        (
            '{"size": 1, "filling": {"name": "plum", "more": 1}}',
            "filling.more: Extra inputs are not permitted",
        ),
        ('{"size": 1, "device_id": "device-2"}', "device_id: Extra inputs are not permitted"),
    ],
)
async def test_bad_arguments_are_refused_with_the_field_that_is_wrong(raw: str, said: str) -> None:
    with pytest.raises(ToolRefused) as refused:
        await order_pie.call(raw, CONTEXT)
    assert said in str(refused.value)
    assert "order_pie was not run" in str(refused.value)
    assert "its fields are: size, filling" in str(refused.value)


async def test_a_refusal_stays_short_whatever_the_model_wrote() -> None:
    raw = json.dumps({"size": 1} | {f"field{i}": i for i in range(10_000)})
    with pytest.raises(ToolRefused) as refused:
        await order_pie.call(raw, CONTEXT)
    assert len(str(refused.value)) < 500


async def test_unknown_fields_are_refused_even_where_the_model_allows_them() -> None:
    class Loose(BaseModel, extra="allow"):
        size: int = 1

    async def order(arguments: Loose, context: ToolContext) -> None:
        """Order."""

    order.__annotations__["arguments"] = Loose  # a name local to this test
    loose = tool()(order)
    assert loose.schema["function"]["parameters"]["additionalProperties"] is False
    with pytest.raises(ToolRefused, match="colour"):
        await loose.call('{"colour": 1}', CONTEXT)


async def test_what_a_tool_refuses_itself_comes_out_as_it_is() -> None:
    @tool()
    async def shut(arguments: Nothing, context: ToolContext) -> None:
        """Shut."""
        raise ToolRefused("The kitchen is shut; ask again tomorrow.")

    with pytest.raises(ToolRefused, match=r"^The kitchen is shut; ask again tomorrow\.$"):
        await shut.call("{}", CONTEXT)


def test_a_refusal_is_shown_as_a_sentence_a_code_and_details() -> None:
    refusal = ToolRefused("The kitchen is shut.", code="shut", until={"hour": 9}, days=("mon", "tue"))
    assert str(refusal) == "The kitchen is shut."
    shown = {"error": "The kitchen is shut.", "code": "shut", "until": {"hour": 9}, "days": ["mon", "tue"]}
    assert refusal.shown() == json.loads(json.dumps(shown)) == ToolRefused.of(shown).shown()
    assert ToolRefused("No.").shown() == {"error": "No."}
    again = pickle.loads(pickle.dumps(refusal))  # noqa: S301 - our own
    assert again.shown() == copy.copy(refusal).shown() == shown


def test_a_refusal_does_not_change() -> None:
    days = ["mon"]
    refusal = ToolRefused("The kitchen is shut.", days=days)
    days.append("tue")
    assert refusal.details == {"days": ["mon"]}
    with pytest.raises(TypeError):
        refusal.details["days"] = []  # type: ignore[index]
    with pytest.raises(AttributeError):
        refusal.code = "open"  # type: ignore[misc]


@pytest.mark.parametrize("details", [{"at": datetime.now(UTC)}, {"share": float("nan")}, {"error": "x"}])
def test_details_that_are_no_json_are_refused_where_they_are_given(details: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ToolRefused("No.", **details)


@pytest.mark.parametrize("name", ["", "two words", "naïve", "a" * 65, "dot.ted", "line\n"])
def test_a_name_no_server_accepts_is_refused(name: str) -> None:
    async def order(arguments: Order, context: ToolContext) -> None:
        """Order."""

    with pytest.raises(ValueError, match="cannot name a tool"):
        tool(name=name)(order)


def _synchronous(arguments: Order, context: ToolContext) -> None:
    """Order."""


async def _one_parameter(arguments: Order) -> None:
    """Order."""


async def _three_parameters(arguments: Order, context: ToolContext, device_id: str) -> None:
    """Order."""


async def _keyword_only(*, arguments: Order, context: ToolContext) -> None:
    """Order."""


async def _not_annotated(arguments, context) -> None:  # type: ignore[no-untyped-def]  # the mistake under test
    """Order."""


async def _no_model(arguments: dict[str, Any], context: ToolContext) -> None:
    """Order."""


async def _no_context(arguments: Order, context: dict[str, Any]) -> None:
    """Order."""


async def _unreadable(arguments: "Missing", context: ToolContext) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Order."""


async def _no_object(arguments: Listed, context: ToolContext) -> None:
    """Order."""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_synchronous, "must be an async function"),
        (_one_parameter, "exactly two parameters"),
        (_three_parameters, "exactly two parameters"),
        (_keyword_only, "exactly two parameters"),
        (_not_annotated, "annotate 'arguments' with a pydantic model"),
        (_no_model, "annotate 'arguments' with a pydantic model"),
        (_no_context, "annotate 'context' with ToolContext"),
        (_unreadable, "annotations cannot be read"),
        (_no_object, "must be an object"),
    ],
)
def test_a_function_that_could_never_work_is_refused_when_it_is_defined(function: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        tool()(function)


def test_a_tool_the_model_would_know_nothing_about_is_refused() -> None:
    async def order(arguments: Order, context: ToolContext) -> None: ...

    with pytest.raises(ValueError, match="needs a description"):
        tool()(order)


def test_an_unknown_effect_is_refused() -> None:
    async def order(arguments: Order, context: ToolContext) -> None:
        """Order."""

    effect: Any = "side"
    with pytest.raises(ValueError, match="effect must be none, database or outside"):
        tool(effect=effect)(order)


def test_a_tool_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        order_pie.name = "other"  # type: ignore[misc]  # the mistake under test


async def test_a_connection_of_asyncpg_fits(dsn: str) -> None:
    @tool()
    async def ask(arguments: Nothing, context: ToolContext) -> Any:
        """Ask."""
        async with context.transaction() as connection:
            row = await connection.fetchrow("SELECT $1::integer AS one", 1)
            assert row is not None
            return [row["one"], await connection.fetchval("SELECT 2"), await connection.execute("SELECT 3")]

    assert isinstance(ask, Tool)
    pool = await asyncpg.create_pool(dsn, min_size=0)

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Connection]:
        async with pool.acquire() as connection, connection.transaction():
            yield connection

    context = ToolContext(device_id="d", now=CONTEXT.now, values={}, transaction=transaction)
    assert await ask.call("{}", context) == [1, 2, "SELECT 1"]
    await pool.close()
