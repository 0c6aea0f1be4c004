"""Asking a model and running a tool in a turn, told and traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorline_agents.messages import Message, ModelAnswer, Usage
from moorline_agents.model import Model, ToolChoice, model_name, model_provider
from moorline_agents.model_errors import ModelError
from moorline_agents.model_options import ModelOptions
from moorline_agents.run import RunContext
from moorline_agents.tools import Tool, ToolContext


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
) -> ModelAnswer:
    """The model's answer; with `shown` its text is part of the reply. What it cost is counted for the agent, also if it
    came to nothing. Raises `ModelError`, and `Stopped` if the person stops the turn."""
    context.stop.check()
    name, tracing = model_name(model), context.tracing
    try:
        with (
            tracing.model(name, provider=model_provider(model), messages=messages) as span,
            context.telling.asking(name, shown=shown) as on_text,
        ):
            async with context.stop.ends():
                answer = await model.complete(
                    messages, tools=tools, tool_choice=tool_choice, on_text=on_text, options=options
                )
            span.answered(
                answer.usage, finish_reason=answer.finish_reason, message=answer.message if tracing.content else None
            )
    except ModelError as error:
        if any(error.usage.values()):
            _count(error.usage, context, model=name, agent=agent)
        raise
    _count(answer.usage, context, model=name, agent=agent)
    return answer


def _count(usage: Usage, context: RunContext, *, model: str, agent: str) -> None:
    context.progress.usage += usage.labelled(model=model, agent=agent)
    context.telling.spent(model, usage)


async def perform(tool: Tool, call_id: str, arguments: str, *, context: RunContext, tools: ToolContext) -> Any:
    """The result of a call, journaled if it has an effect. Raises `ToolRefused` if the tool will not."""
    with context.tracing.tool(tool.name, call_id=call_id, arguments=arguments) as span:
        result = await context.journal.perform(tool, arguments, tools)
        span.returned(result)
        return result
