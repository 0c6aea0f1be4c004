"""Types of the application in what a graph stores: what comes back is what LangGraph's saver in memory gives."""

import collections
import dataclasses
import enum
import subprocess
import sys
from typing import Annotated, Any, NamedTuple, TypedDict

import ormsgpack
import pytest
from langchain_core.agents import AgentAction
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import AfterValidator, BaseModel, Field, field_validator

from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_checkpoint.serializer import StrictSerializer
from tests.checkpoint.checkpoints import config

made: list[str] = []
"""The classes below that ran code of their own when an object was made."""


class Size(enum.Enum):
    SMALL = "small"


class Colour(enum.StrEnum):
    RED = "red"


class Days(enum.IntFlag):
    MONDAY = 1
    TUESDAY = 2


class Point(NamedTuple):
    x: int
    y: int


class Place(collections.namedtuple("Place", "street town")):
    pass


class Cart(BaseModel):
    class Kind(enum.Enum):
        GIFT = "gift"

    items: list[str] = []
    size: Size = Size.SMALL
    kind: Kind = Kind.GIFT


@dataclasses.dataclass(frozen=True)
class Line:
    cart: Cart
    at: Point


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "value",
    [
        Size.SMALL,
        Colour.RED,
        Days.MONDAY | Days.TUESDAY,
        Point(1, 2),
        Place("High Street", "Bath"),
        Cart(items=["apple"]),
        Line(Cart(items=["pear"]), Point(3, 4)),
        {"carts": [Cart()], Size.SMALL: {Point(1, 2)}},
        collections.defaultdict(list, {"a": [1]}),
        collections.Counter("aab"),
        collections.deque([1, 2, 3], maxlen=3),
        AgentAction("search", "ships", "looking"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_comes_back_in_another_process_as_it_does_from_memory(dsn: str, value: object) -> None:
    async def kept(saver: Any, *, another: Any) -> object:
        class State(TypedDict):
            value: Any

        builder = StateGraph(State).add_node("keep", lambda _: {"value": value}).add_edge(START, "keep")
        await builder.compile(checkpointer=saver).ainvoke({"value": None}, config("a"))
        return (await builder.compile(checkpointer=another).aget_state(config("a"))).values["value"]

    in_memory = InMemorySaver()
    expected = await kept(in_memory, another=in_memory)
    async with DeviceCheckpointer.from_conn_string(dsn) as one, DeviceCheckpointer.from_conn_string(dsn) as another:
        found = await kept(one, another=another)
    assert (type(found), found) == (type(expected), expected)


class Checked(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _note(cls, name: str) -> str:
        made.append("Checked")
        return name


class Opened(BaseModel):
    name: str

    def model_post_init(self, _context: object) -> None:
        made.append("Opened")


class Positional(BaseModel):
    name: str

    def __init__(self, name: str) -> None:
        made.append("Positional")
        super().__init__(name=name)


@dataclasses.dataclass
class Prepared:
    name: str

    def __post_init__(self) -> None:
        made.append("Prepared")


@dataclasses.dataclass
class Written:
    name: str

    def __init__(self, name: str) -> None:
        made.append("Written")
        self.name = name


class Narrowed(Prepared):
    pass


class Counted(Point):
    def __new__(cls, x: int, y: int) -> "Counted":
        made.append("Counted")
        return super().__new__(cls, x, y)


class Plain:
    def __init__(self, **_fields: object) -> None:
        made.append("Plain")


def _noted(name: str) -> Any:
    made.append(name)


def _annotating(name: str) -> str:
    _noted("Annotating")
    return name


class Annotating(BaseModel):
    name: Annotated[str, AfterValidator(_annotating)]


class Nesting(BaseModel):
    name: str
    checked: list[Any] = Field(default_factory=lambda: [_noted("Nesting")])


class Holding(BaseModel):
    name: Checked | str


class Sealing(BaseModel):
    name: str

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **_values: Any) -> "Sealing":
        raise AssertionError


@dataclasses.dataclass
class Setting:
    name: str

    def __setattr__(self, name: str, value: object) -> None:
        made.append("Setting")
        super().__setattr__(name, value)


@dataclasses.dataclass
class Filling:
    name: str
    others: list[str] = dataclasses.field(default_factory=lambda: [_noted("Filling")])


class Guessing(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, _value: object) -> "Guessing":
        made.append("Guessing")
        return cls.A


NOTED = [
    Checked,
    Opened,
    Positional,
    Prepared,
    Written,
    Narrowed,
    Counted,
    Plain,
    Annotating,
    Nesting,
    Setting,
    Filling,
]


@pytest.mark.parametrize("kind", NOTED)
def test_a_class_with_code_of_its_own_is_made_only_if_it_is_allowed(kind: type) -> None:
    fields = {"x": 1, "y": 2} if kind is Counted else {"name": "a"}
    row = "msgpack", ormsgpack.packb(ormsgpack.Ext(2, ormsgpack.packb((kind.__module__, kind.__name__, fields))))
    made.clear()
    assert StrictSerializer().loads_typed(row) == fields
    assert made == []
    assert type(StrictSerializer([kind]).loads_typed(row)) is kind
    assert type(StrictSerializer().with_msgpack_allowlist([kind]).loads_typed(row)) is kind
    assert made == [kind.__name__ if kind is not Narrowed else "Prepared"] * 2


@pytest.mark.parametrize(("kind", "given"), [(Sealing, {"name": 1}), (Guessing, "b")])
def test_nor_does_what_a_class_does_with_values_that_are_wrong(kind: type, given: object) -> None:
    code = 0 if kind is Guessing else 5
    row = "msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb((kind.__module__, kind.__name__, given, ""))))
    made.clear()
    assert StrictSerializer().loads_typed(row) == given
    assert made == []


def test_nor_does_the_code_of_a_model_inside_another() -> None:
    given = {"name": {"name": "a"}}
    row = "msgpack", ormsgpack.packb(ormsgpack.Ext(5, ormsgpack.packb((__name__, "Holding", given, ""))))
    made.clear()
    assert StrictSerializer().loads_typed(row) == given
    assert made == []


IMPORTS = """
import sys, ormsgpack
from moorline_checkpoint.serializer import StrictSerializer
row = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(("tty", "Anything", 1))))
print(StrictSerializer().loads_typed(("msgpack", row)), "tty" in sys.modules)
"""


def test_a_row_imports_nothing() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1 False"
