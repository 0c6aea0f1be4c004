"""Structured answers: an agent's answer as an instance of a pydantic model."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from moorline_agents.checks import Check, CheckFailed, Refuse, Replace, check_name, verdict_of
from moorline_agents.errors import AgentError
from moorline_agents.json_limits import parsed
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.model_options import AnswerSchema

if TYPE_CHECKING:
    from moorline_agents.run import RunContext

TOLD = 2
"""How often a model is told that its answer is wrong before the turn fails."""

_WRONG = (
    "This answer does not fit: {problems}. Answer again, with nothing but a JSON object that fits this schema: {schema}"
)
_PROBLEMS = 5
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StructuredAnswer(ModelAnswer):
    """An answer that fits."""

    output: Any = None
    """As JSON."""


Asking = Callable[..., Awaitable[ModelAnswer]]
"""Asks the model of an agent: given messages, and whether its text is shown."""


def answer_schema(model: type[BaseModel]) -> AnswerSchema:
    """The schema of an answer. Raises `ValueError` for a model that is not of an object with named fields, and
    `TypeError` for what is no pydantic model."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"output must be a pydantic model, not {model!r}.")
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", model.__name__)[:64]
    return AnswerSchema(name=name, schema=model.model_json_schema(), description=(model.__doc__ or "").strip())


def rendered(value: BaseModel, stored: Any) -> str:
    """What a person reads of an answer: `str()` of it if its class says itself how that is written, else its JSON."""
    own = type(value).__str__ is not BaseModel.__str__
    return str(value) if own else json.dumps(stored, ensure_ascii=False)


def fitted(model: type[BaseModel], stored: Any) -> BaseModel:
    """The answer whose JSON was stored. Raises `ValueError` if the model does not take it."""
    return model.model_validate_json(json.dumps(stored))


class StructuredAnswers:
    """The answers of an agent that has an `output`."""

    def __init__(self, model: type[BaseModel], checks: Sequence[Check], *, agent: str, seconds: float | None) -> None:
        self._model = model
        self._schema = answer_schema(model)
        self._checks = checks
        self._agent = agent
        self._seconds = seconds

    async def answer(self, ask: Asking, messages: Sequence[Message], context: RunContext) -> ModelAnswer:
        """The answer: one that calls tools, one whose text is JSON that fits the model, or the sentence with which an
        output check has refused it. The model is told what is wrong with its answer, `TOLD` times; then this raises
        `AgentError`."""
        for told in range(TOLD + 1):
            answer = await ask(messages, shown=False)
            if answer.message.get("tool_calls"):
                return answer
            content = answer.message["content"] or ""
            try:
                stored, value = self._read(content)
            except _Wrong as wrong:
                if told < TOLD:
                    messages = [*messages, *self._corrected(answer.message, str(wrong))]
                continue
            async with context.stop.ends():
                return await self._passed(answer, stored, value, context)
        raise AgentError(
            f"The model of agent {self._agent} answered {TOLD + 1} times with what is no {self._model.__name__}. "
            "Describe its fields, allow more, or use another model."
        )

    def text(self, stored: Any) -> str:
        """What a person reads of an answer."""
        return rendered(fitted(self._model, stored), stored)

    def _read(self, content: str) -> tuple[Any, BaseModel]:
        """The JSON of a text and what it stands for. Raises `_Wrong`, which says to the model what is wrong."""
        fenced = _FENCED.fullmatch(content)
        try:
            stored = parsed(fenced[1] if fenced else content)
        except ValueError:
            raise _Wrong("it is no JSON that can be used") from None
        try:
            return stored, fitted(self._model, stored)
        except ValidationError as error:
            problems = (_problem(each) for each in error.errors(include_url=False, include_input=False)[:_PROBLEMS])
            raise _Wrong("; ".join(problems)) from None

    def _corrected(self, wrong: Message, problems: str) -> list[Message]:
        told: Message = {
            "role": "user",
            "content": _WRONG.format(problems=problems, schema=json.dumps(self._schema.schema, ensure_ascii=False)),
        }
        return [wrong, told] if wrong["content"] else [told]

    async def _passed(self, answer: ModelAnswer, stored: Any, value: BaseModel, context: RunContext) -> ModelAnswer:
        """The answer as the output checks leave it."""
        tools = replace(context.tools, agent=self._agent)
        message = answer.message
        for check in self._checks:
            match await verdict_of(check, value, tools, seconds=self._seconds):
                case Refuse(sentence):
                    context.telling.check_refused(check_name(check), "output", sentence)
                    return replace(answer, message={"role": "assistant", "content": sentence})
                case Replace(other):
                    stored, value = self._replaced(other, check)
                    message = {"role": "assistant", "content": json.dumps(stored, ensure_ascii=False)}
                case _:
                    pass
        return StructuredAnswer(message, answer.usage, answer.finish_reason, output=stored)

    def _replaced(self, value: Any, check: Check) -> tuple[Any, BaseModel]:
        wrong = CheckFailed(
            f"Check {check_name(check)} of agent {self._agent} replaced an answer with what is no valid "
            f"{self._model.__name__}."
        )
        if not isinstance(value, self._model):
            raise wrong
        try:
            stored = value.model_dump(mode="json", by_alias=True, round_trip=True)
            return stored, fitted(self._model, stored)
        except ValueError as error:
            raise wrong from error


class _Wrong(Exception):
    """What is wrong with an answer."""


def _problem(details: Any) -> str:
    where = ".".join(map(str, details["loc"]))[:100]
    return f"{where}: {details['msg']}" if where else str(details["msg"])
