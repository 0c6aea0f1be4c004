"""Tools: async functions with pydantic arguments that a model may call.

A tool never learns from its arguments who is asking: identity, clock and database come in the `ToolContext`, which the
server fills. The kit runs the calls of a model's answer, has effects recorded, and talks to the model.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
import typing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Never, Protocol, Self, TypeVar, overload

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from moorline_agents.checks import Check, validate_checks
from moorline_agents.confirmation import Confirm, check_confirm
from moorline_agents.questions import Given, Question, UnfitAnswer, ask
from moorline_agents.values import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from langgraph.store.base import BaseStore
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import ErrorDetails, core_schema

    from moorline_agents.files import ReceivedFile

Effect = Literal["none", "database", "outside"]

_ArgumentsT = TypeVar("_ArgumentsT", bound=BaseModel)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what chat-completions servers accept
_AnswerT = TypeVar("_AnswerT", bound=BaseModel)
_LONGEST_WAIT = 10 * 365 * 86_400  # seconds
_PARAMETERS = 2  # arguments, context
_PROBLEMS = 5  # named in one refusal
_MESSAGE = 10_000  # characters of a refusal's message that are shown


class ToolRefused(Exception):
    """Raised by a tool that cannot do what it was asked. The turn goes on, and the model is shown the refusal.

    The message says what is wrong and what can be done instead. `code` names the kind of refusal, and `details` are
    JSON values that belong to it, such as the times that are free, for programs that need more than a sentence. All of
    it is kept with the turn, so that a rerun gets the same refusal. A refusal is immutable.
    """

    retryable = False
    """The same call is refused again until something has changed."""

    def __init__(self, message: str, /, *, code: str | None = None, **details: Any) -> None:
        """Raises `TypeError` or `ValueError` for details that are not JSON, or for one named `error`: under that name
        the model is shown the message."""
        super().__init__(message)
        if "error" in details:
            raise TypeError("a detail cannot be named `error`: under that name the model is shown the message")
        self._code = code
        self._details: dict[str, Any] = json.loads(json.dumps(details, allow_nan=False))

    @property
    def code(self) -> str | None:
        return self._code

    @property
    def details(self) -> Mapping[str, Any]:
        return MappingProxyType(self._details)

    def shown(self) -> dict[str, Any]:
        """The result of the call as the model is shown it: `{"error": message, "code": …, …}`."""
        code = {} if self._code is None else {"code": self._code}
        return {"error": settled(str(self)[:_MESSAGE]), **code, **settled(self._details)}

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> Self:
        """The refusal that `shown` returned as JSON."""
        rest = {name: value for name, value in shown.items() if name != "error"}
        return cls(shown["error"], **rest)


class ToolTimedOut(ToolRefused):
    """The tool did not end in its time, or held a transaction for too long, and was given up."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            f"{name} did not end within {seconds:g} s and was given up; it has changed nothing. Tell the person, or "
            "try again later.",
            code="timed_out",
        )
        self.seconds = seconds


class Row(Protocol):
    """A row of a result; values are read by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Connection(Protocol):
    """What a tool may do with the database inside its transaction; asyncpg's connections fit."""

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Row]: ...
    async def fetchrow(self, query: str, /, *args: Any) -> Row | None: ...
    async def fetchval(self, query: str, /, *args: Any) -> Any: ...
    async def execute(self, query: str, /, *args: Any) -> str: ...


def no_memory(agent: str) -> BaseStore:
    """Refuses: the agent has no facts."""
    raise RuntimeError(f"There are no facts of {agent or 'an agent'} here: they are kept in turns of a Moorline.")


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """What the server knows about the turn in which a tool runs. Nothing in it comes from a model."""

    device_id: str
    agent: str = ""
    """The agent whose part of the turn it is; empty if a graph runs without a manager."""
    now: datetime
    """The database's time when the turn began, with time zone; a rerun of the turn may see a later time."""
    values: Mapping[str, Any]
    """The other keys of the context with which the turn was called."""
    transaction: Callable[[], AbstractAsyncContextManager[Connection]]
    """Opens a transaction that commits when the block ends well and rolls back when it raises."""
    memory_of: Callable[[str], BaseStore] = field(default=no_memory, repr=False)
    """The facts that an agent keeps, by its name."""
    files: Sequence[ReceivedFile] = ()
    """What came with the message that is being answered."""
    idempotency_key: str = ""
    """For `outside` effects: the same in every run of a turn, so that the other side recognises a repeated call."""
    answers: list[Given] = field(default_factory=list, repr=False)
    """The answers that the call has been given so far."""
    asked: list[Exception] = field(default_factory=list, repr=False)
    """The question at which the call stops, as LangGraph raises it."""
    asks_again: bool = field(default=False, repr=False)
    """Whether `ask` asks again if words come to nothing: in a graph, no model is told of a refusal."""

    @property
    def answered_by(self) -> str | None:
        """Who gave the last answer that `ask` returned, or the yes to the call: the `by` of the `Resume`. None: the
        person themselves."""
        return self.answers[-1].by if self.answers else None

    @overload
    async def ask(self, question: str, /, *, options: Sequence[str], expires: float | None = None) -> str: ...

    @overload
    async def ask(self, question: str, /, *, schema: type[_AnswerT], expires: float | None = None) -> _AnswerT: ...

    async def ask(
        self,
        question: str,
        /,
        *,
        options: Sequence[str] = (),
        schema: type[BaseModel] | None = None,
        expires: float | None = None,
    ) -> str | BaseModel:
        """Asks the person, and returns one of `options`, or an instance of `schema`.

        The turn ends here with the question; the turn that brings the answer, in whatever process and however much
        later, runs the tool again from its beginning, and then this returns. So act after asking. The answer is a
        `Resume`, or what the person writes next. It takes no other: whatever does not answer closes the question, and
        so does any message once `expires` seconds have passed; then the tool does not go on, and the model is told.

        Raises `TypeError` or `ValueError` for a question that cannot be asked, and `ToolRefused`, which need not be
        caught, if what the person said does not fit the schema; a graph asks again instead.
        """
        if not (expires is None or (isinstance(expires, int | float) and 0 < expires < _LONGEST_WAIT)):
            raise ValueError("A question expires after a positive number of seconds, of at most ten years.")
        until = None if expires is None else (self.now + timedelta(seconds=expires)).isoformat()
        model = schema is None or (isinstance(schema, type) and issubclass(schema, BaseModel))
        if isinstance(options, str) or not model:
            raise TypeError('A question has options=("yes", "no"), or a pydantic model as its schema=….')
        form = None if schema is None else schema.model_json_schema()
        asked = Question(text=question, options=tuple(options), schema=form, expires_at=until)
        while True:
            given = ask(asked, self.asked)
            if given.confirms is not None:  # a yes to the call, which an earlier run of the turn has had
                continue
            try:
                fitting = _fitting(given, asked, schema)
            except ToolRefused:
                if not self.asks_again:
                    raise
                continue
            self.answers.append(given)
            return fitting

    @property
    def memory(self) -> BaseStore:
        """The facts that the agent keeps of the person: a LangGraph store without those of other agents and other
        persons. What the turn writes is kept if the turn is committed, and read in it before that. Its methods are the
        asynchronous ones: `await context.memory.aput(("people",), "name", {"name": "Ada"})`."""
        return self.memory_of(self.agent) if self.agent else no_memory(self.agent)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model may call, made by `tool`. One that could never work is refused when it is made."""

    name: str
    description: str
    arguments: type[BaseModel]
    function: Callable[[Any, ToolContext], Coroutine[Any, Any, Any]]
    effect: Effect
    """`none`: it only reads. `database`: it changes rows, only inside `ToolContext.transaction`. `outside`: it changes
    something that no transaction can take back."""
    idempotent: bool
    """Whether running it twice with the same arguments has the same effect as running it once."""
    check: Check | None = None
    """Sees the validated arguments of a call before anything comes of it, and may refuse or replace them."""
    timeout: float | None = None
    """Seconds that a call may take; None: as the runtime says (`MOORLINE_TOOL_TIMEOUT`)."""
    confirm: Confirm | None = None
    """What the person is asked before a call: it runs only with a yes to exactly its arguments."""
    schema: dict[str, Any] = field(init=False, compare=False, repr=False)
    """Its entry in the `tools` list of a chat-completions request. It is shared and must not be changed."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot name a tool: use 1 to 64 letters, digits, underscores or hyphens.")
        if not self.description:
            raise ValueError(f"Tool {self.name} needs a description: write a docstring or pass description=.")
        if self.effect not in typing.get_args(Effect):
            raise ValueError(f"Tool {self.name}: effect must be none, database or outside, not {self.effect!r}.")
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"Tool {self.name}: timeout must be a positive number of seconds.")
        if self.check is not None:
            validate_checks([self.check], f"Tool {self.name}")
        if self.confirm is not None:
            check_confirm(self.confirm, self.arguments, self.name)
        parameters = self.arguments.model_json_schema(schema_generator=_ParameterSchema)
        if parameters.get("type") != "object":
            raise TypeError(f"Tool {self.name}: its arguments must be an object with named fields.")
        parameters.setdefault("properties", {})
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        object.__setattr__(self, "schema", {"type": "function", "function": function})

    async def call(self, raw_arguments: str, context: ToolContext) -> Any:
        """Runs the tool with `raw_arguments`, the JSON text that a model wrote, and returns its result, as JSON in
        every case (see `values.settled`).

        An empty text means no arguments. Raises `ToolRefused`, also for arguments that do not fit: then the tool was
        not run, and the message names each wrong field. Raises `ToolTimedOut` if it does not end in its time.
        """
        arguments = self.validated(raw_arguments)
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                result = await self.function(arguments, context)
        except TimeoutError:
            if self.timeout is None or not deadline.expired():
                raise
            raise ToolTimedOut(self.name, self.timeout) from None
        if context.asked:  # the function has caught its own question
            raise context.asked[0]
        return settled(result)

    def within(self, seconds: float | None) -> Tool:
        """The tool, which may take so many seconds unless it says itself how many."""
        return self if self.timeout is not None else replace(self, timeout=seconds)

    def validated(self, raw_arguments: str) -> BaseModel:
        """The arguments as the function gets them. Raises `ToolRefused` if they do not fit."""
        try:
            return self.arguments.model_validate_json(raw_arguments.strip() or "{}", extra="forbid")
        except ValidationError as error:
            problems = "; ".join(map(_problem, error.errors(include_url=False)[:_PROBLEMS]))
        fields = ", ".join(self.schema["function"]["parameters"]["properties"]) or "none"
        raise ToolRefused(
            f"{self.name} was not run, its arguments are wrong: {problems}. "
            f"Call it again with a JSON object; its fields are: {fields}.",
            code="wrong_arguments",
        )


def tool(
    *misplaced: Never,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "none",
    idempotent: bool = False,
    check: Check | None = None,
    confirm: Confirm | None = None,
    timeout: float | None = None,
) -> Callable[[Callable[[_ArgumentsT, ToolContext], Coroutine[Any, Any, Any]]], Tool]:
    """Makes a `Tool` of `async def f(arguments: SomeModel, context: ToolContext)`, which returns JSON, or
    what pydantic can make JSON of.

    Name and description default to the function's name and docstring. `check` sees the validated arguments first and
    may refuse or replace them. With `confirm` the person is then asked, with a template of the arguments
    (`"Book {service} on {start}?"`) or what a function of arguments and context returns; the function runs only with a
    yes to exactly these arguments. A call that takes more than `timeout` seconds is given up. Raises `TypeError` or
    `ValueError` at once for a definition that could never work, such as a function that is not async, and for `@tool`
    without parentheses.
    """
    if misplaced:
        raise TypeError('Write `@tool()` with parentheses, and in them what the tool does: `@tool(effect="none")`.')

    def decorate(function: Callable[[_ArgumentsT, ToolContext], Coroutine[Any, Any, Any]]) -> Tool:
        own_name: str = getattr(function, "__name__", type(function).__name__)
        return Tool(
            name=own_name if name is None else name,
            description=(inspect.getdoc(function) or "") if description is None else description,
            arguments=_arguments_model(function, own_name),
            function=function,
            effect=effect,
            idempotent=idempotent,
            check=check,
            confirm=confirm,
            timeout=timeout,
        )

    return decorate


def _fitting(given: Given, asked: Question, schema: type[BaseModel] | None) -> str | BaseModel:
    """The answer as the tool gets it, if it fits what the tool asks now. Raises `ToolRefused` if the question has
    changed since, or the person's own words came to nothing, `UnfitAnswer` for any other that does not fit."""
    problem = "it is none of the options"
    if schema is None and given.confirms is None and given.answer in asked.options:
        return str(given.answer)
    if schema is not None and given.confirms is None:
        try:
            return schema.model_validate_json(json.dumps(given.answer))
        except ValidationError as error:
            problem = "; ".join(map(_problem, error.errors(include_url=False)[:_PROBLEMS]))
    if given.asked not in (None, asked.form):
        raise ToolRefused(
            "The question has changed since the person answered it. Nothing was done; call this again to ask anew.",
            code="question_changed",
            answer=given.answer,
        )
    if given.said is None:
        raise UnfitAnswer(f"The answer does not fit the question ({problem}).")
    raise ToolRefused(
        f"What the person answered does not fit ({problem}). Nothing was done; tell them, and call this again to ask "
        "again.",
        code="unfit_answer",
        said=given.said,
    )


def _arguments_model(function: Callable[..., Any], name: str) -> type[BaseModel]:
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"Tool {name} must be an async function: write `async def {name}(...)`.")
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != _PARAMETERS or any(p.kind not in positional for p in parameters):
        raise TypeError(f"Tool {name} must take exactly two parameters: (arguments: Model, context: ToolContext).")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(
            f"Tool {name}: its annotations cannot be read ({error}); define or import the names at module "
            "level, outside `if TYPE_CHECKING`."
        ) from error
    model, context = (hints.get(parameter.name) for parameter in parameters)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"Tool {name}: annotate {parameters[0].name!r} with a pydantic model.")
    if context is not ToolContext:
        raise TypeError(f"Tool {name}: annotate {parameters[1].name!r} with ToolContext.")
    return model


def _problem(details: ErrorDetails) -> str:
    where = ".".join(str(part)[:100] for part in details["loc"])
    what = details["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


class _ParameterSchema(GenerateJsonSchema):
    """The schema that a model is shown: without generated titles, and with closed objects, as unknown fields are
    refused."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # as pydantic's
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        shown = super().model_schema(schema)
        shown.pop("title", None)
        if shown.get("type") == "object":
            shown["additionalProperties"] = False
        return shown
