"""What a graph keeps as an agent: its state has its types in every turn, and belongs to the turn."""

import dataclasses
import enum
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from pydantic import BaseModel, field_validator

from moorline import GraphAgent, Moorline, Settings, StrictSerializer
from moorline.errors import AgentError
from moorline.manager import AgentProtocol
from moorline_agents.graph_types import state_types


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Item(BaseModel):
    name: str
    size: Size = Size.SMALL

    @field_validator("name")
    @classmethod
    def _tidied(cls, name: str) -> str:
        return name.strip()


@dataclasses.dataclass
class Line:
    item: Item
    pieces: int

    def __post_init__(self) -> None:
        assert self.pieces > 0


class Point(NamedTuple):
    x: int
    y: int


class Loose(BaseModel):
    """No schema names it."""

    name: str

    def model_post_init(self, _context: object) -> None:
        assert self.name


Counted = NewType("Counted", Line)


class Order(MessagesState, total=False):
    lines: Annotated[list[Line], operator.add]
    by_name: Mapping[str, Counted]
    at: Point | None
    size: Literal["none"] | Size
    other: Any


def order(state: Order) -> dict[str, Any]:
    """Keeps a value of each type, and tells the types of what it kept before."""
    kept: list[Any] = [*state.get("lines", []), *state.get("by_name", {}).values()]
    kept += [line.item for line in kept if isinstance(line, Line)]
    kept += [state[key] for key in ("at", "size", "other") if key in state]
    line = Line(Item(name="tea"), 2)
    return {
        "lines": [line],
        "by_name": {"tea": line},
        "at": Point(1, 2),
        "size": Size.LARGE,
        "other": Loose(name="a"),
        "messages": [AIMessage(" ".join(type(each).__name__ for each in kept) or "nothing")],
    }


def agent(graph: Any) -> GraphAgent:
    return GraphAgent(name="shop", description="shop", graph=graph)


def ordering() -> GraphAgent:
    return agent(StateGraph(Order).add_node("order", order).add_edge(START, "order").compile())


async def say(settings: Settings, shop: AgentProtocol, text: str, **options: Any) -> str:
    """The reply of a runtime that is opened for this message alone."""
    async with Moorline(settings, agents=[shop], **options) as moorline:
        return await moorline.run(text, {"device_id": "d1"})


async def test_the_types_that_a_graphs_schema_names_come_back_in_every_turn(settings: Settings) -> None:
    assert await say(settings, ordering(), "one") == "nothing"
    assert await say(settings, ordering(), "two") == "Line Line Item Item Point Size dict"
    assert await say(settings, ordering(), "three") == "Line Line Line Item Item Item Point Size dict"


async def test_others_come_back_if_the_serializer_allows_them(settings: Settings) -> None:
    for answer in ("nothing", "Line Line Item Item Point Size Loose"):
        assert await say(settings, ordering(), "one", serde=StrictSerializer([Loose])) == answer


def test_exactly_the_types_that_the_schemas_name_are_wanted() -> None:
    class Private(TypedDict):
        point: Point

    def spread(state: Order) -> Any:
        return Send("alone", {"point": Point(1, 2)})

    inner = StateGraph(Order).add_node("order", order).add_edge(START, "order").compile()
    graph = StateGraph(MessagesState).add_node("inner", inner).add_node("alone", lambda _: {}, input_schema=Private)
    graph.add_edge(START, "inner").add_conditional_edges("inner", spread, ["alone"])
    wanted = {name for module, name in state_types(graph.compile()) if module == __name__}
    assert wanted >= {"Line", "Item", "Size", "Point"}
    assert "Loose" not in wanted


async def test_what_a_synchronous_node_stores_belongs_to_the_turn(settings: Settings) -> None:
    class Count(TypedDict):
        seen: Annotated[list[str], operator.add]

    count = StateGraph(Count).add_node("count", lambda _: {"seen": ["counted"]}).add_edge(START, "count")
    counting = count.compile(checkpointer=True, name="counting")

    def answer(state: MessagesState) -> dict[str, Any]:
        text = str(state["messages"][-1].text)
        seen = counting.invoke({"seen": [text]})["seen"]
        if text == "fail":
            raise LookupError
        return {"messages": [AIMessage(f"seen {len(seen)}")]}

    shop = agent(StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile())
    assert await say(settings, shop, "one") == "seen 2"
    with pytest.raises(AgentError):
        await say(settings, shop, "fail")
    assert await say(settings, shop, "two") == "seen 4"
