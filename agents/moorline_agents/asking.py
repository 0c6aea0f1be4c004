"""Asking a model and running a tool in a turn, told and traced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moorline_agents.files import with_files
from moorline_agents.journal import Admit
from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import Model, ToolChoice, model_name, model_provider
from moorline_agents.model_errors import ModelError
from moorline_agents.model_options import ModelOptions
from moorline_agents.run import RunContext
from moorline_agents.shown_files import with_shown
from moorline_agents.telling import OnText
from moorline_agents.tools import Tool, ToolContext

logger = logging.getLogger("moorline.model")


async def ask(
    model: Model,
    messages: Sequence[Message],
    *,
    context: RunContext,
    agent: str,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: ToolChoice | None,
    shown: bool = True,
    options: ModelOptions | None = None,
    fallbacks: Sequence[Model] = (),
    through: Callable[[OnText], OnText] | None = None,
) -> ModelAnswer:
    """The model's answer; with `shown` its text is part of the reply. What it cost is counted for the agent, also if it
    came to nothing. `through`, given what shows text, returns what is to get the model's text instead.

    If the model fails, the first of `fallbacks` is asked, and so on; not if it failed over the request itself, and not
    once any of its text was shown. Raises the last `ModelError`, and `Stopped` if the person stops the turn.
    """
    left = [model, *fallbacks]
    while True:
        asked, *left = left
        attempt = _Attempt(asked, context=context, agent=agent, through=through)
        try:
            return await attempt.answer(messages, shown=shown, tools=tools, tool_choice=tool_choice, options=options)
        except ModelError as error:
            if not left or error.about_request or attempt.told:
                raise
            logger.warning("Model %s failed (%s); %s is asked instead.", model_name(asked), error, model_name(left[0]))


async def perform(
    tool: Tool, call_id: str, arguments: str, *, context: RunContext, tools: ToolContext, admit: Admit | None = None
) -> Any:
    """The result of a call, journaled if it has an effect. Raises `ToolRefused` if the tool, or `admit`, will not."""
    with context.tracing.tool(tool.name, call_id=call_id, arguments=arguments) as span:
        result = await context.journal.perform(tool, arguments, tools, admit)
        span.returned(result)
        return result


class _Attempt:
    """A model is asked once."""

    def __init__(
        self, model: Model, *, context: RunContext, agent: str, through: Callable[[OnText], OnText] | None
    ) -> None:
        self._model = model
        self._through = through
        self._context = context
        self._agent = agent
        self._name = model_name(model)
        self.told = False
        """Whether any of its text was shown."""

    async def answer(self, messages: Sequence[Message], *, shown: bool, **asked: Any) -> ModelAnswer:
        context, tracing = self._context, self._context.tracing
        context.stop.check()
        try:
            with (
                tracing.model(self._name, provider=model_provider(self._model), messages=messages) as span,
                context.telling.asking(self._name, shown=shown) as on_text,
            ):
                async with context.stop.ends():
                    options = {**asked, "on_text": self._noticed(on_text)}
                    if with_files(messages):
                        answer = await with_shown(self._model, messages, context.read_files, **options)
                    else:
                        answer = await self._model.complete(messages, **options)
                message = answer.message if tracing.content else None
                span.answered(answer.usage, finish_reason=answer.finish_reason, message=message)
        except ModelError as error:
            if any(error.usage.values()):
                self._count(error.usage)
            raise
        self._count(answer.usage)
        return answer

    def _noticed(self, on_text: OnText | None) -> OnText | None:
        if on_text is None:
            return None
        if self._through is not None:
            on_text = self._through(on_text)

        def notice(text: str) -> None:
            self.told = True
            on_text(text)

        return notice

    def _count(self, usage: Usage) -> None:
        self._context.progress.usage += usage.labelled(model=self._name, agent=self._agent)
        self._context.telling.spent(self._name, usage)
