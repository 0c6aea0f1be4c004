"""Hearing what LangChain's models and tools do while a graph runs, in whichever node, graph, tool or thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from moorline_agents.messages import Usage
from moorline_agents.telling import Telling
from moorline_agents.tools import ToolRefused
from moorline_agents.values import settled
from moorline_migrations.plain import one_line

logger = logging.getLogger("moorline.model")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one answer of a model cost, as the server counted it."""

    id: str | None
    model: str
    usage: Usage


def spent_by(message: Any) -> Spent | None:
    """What a message cost, if it says so."""
    counted = message.usage_metadata if isinstance(message, AIMessage) else None
    if not counted:
        return None
    return Spent(
        id=message.id,
        model=str(message.response_metadata.get("model_name", "")),
        usage=Usage(counted["input_tokens"], counted["output_tokens"]),
    )


@dataclass(kw_only=True)
class _Asked:
    """A model that is asked."""

    model: str
    begun: float
    first_text: float | None = None


class Listener(BaseCallbackHandler):
    """Tells what it hears, and keeps what the models' answers cost. Made on the loop of the turn."""

    run_inline = True

    def __init__(self, telling: Telling) -> None:
        self.spent: list[Spent] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called on the loop when `only_models` may have become true."""
        self._telling = telling
        self._loop = asyncio.get_running_loop()
        self._asked: dict[UUID, _Asked] = {}
        self._calls: dict[UUID, tuple[str, str]] = {}
        """Name and ID of the calls that run."""

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: Any,  # noqa: ARG002
        *,
        run_id: UUID,
        **more: Any,
    ) -> None:
        asked = _Asked(model=_model(serialized, more), begun=time.monotonic())
        self._asked[run_id] = asked
        self._tell(self._telling.model_started, asked.model)
        self._tell(self.on_change)

    def on_llm_start(self, serialized: dict[str, Any] | None, prompts: list[str], *, run_id: UUID, **more: Any) -> None:
        self.on_chat_model_start(serialized, prompts, run_id=run_id, **more)

    def on_llm_new_token(self, token: str | list[Any], *, run_id: UUID, **_: Any) -> None:
        asked = self._asked.get(run_id)
        if token and asked is not None and asked.first_text is None:
            asked.first_text = time.monotonic() - asked.begun

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        asked = self._answered(run_id, failed=None)
        given = [each for generations in response.generations for each in generations]
        counted = [spent_by(each.message) for each in given if isinstance(each, ChatGeneration)]
        for spent in filter(None, counted):
            self.spent.append(spent)
            self._tell(self._telling.spent, spent.model, spent.usage)
        if asked is not None and asked.first_text is not None and not any(counted):
            _warn_that_nothing_is_counted(asked.model)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._answered(run_id, failed=type(error).__name__)

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        inputs: Mapping[str, Any] | None = None,
        tool_call_id: str | None = None,
        **_: Any,
    ) -> None:
        name = str((serialized or {}).get("name", ""))
        self._calls[run_id] = name, tool_call_id or str(run_id)
        arguments = settled(inputs if inputs is not None else {"input": input_str})
        self._tell(self._telling.tool_started, *self._calls[run_id], arguments)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        name, call_id = self._calls.pop(run_id, ("", ""))
        message = _message(output, call_id)
        if isinstance(message, ToolMessage) and message.status == "error":
            refused = {"error": settled(str(message.text))}
            self._tell(self._telling.tool_finished, name, call_id, refused=refused)
            return
        result = settled(message.content if isinstance(message, ToolMessage) else message)
        self._tell(self._telling.tool_finished, name, call_id, result=result)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        name, call_id = self._calls.pop(run_id, ("", ""))
        if isinstance(error, GraphBubbleUp):  # it asks, and is called again when it has its answer
            return
        refused = error.shown() if isinstance(error, ToolRefused) else {"error": settled(str(error))}
        self._tell(self._telling.tool_finished, name, call_id, refused=refused)

    def only_models(self) -> bool:
        """Whether models are being asked, and no tool runs."""
        return bool(self._asked) and not self._calls

    def unheard(self, messages: Sequence[Any]) -> list[Spent]:
        """What those of the graph's new messages cost whose models were asked in a way that is not heard."""
        unseen = list(self.spent)
        unheard: list[Spent] = []
        for spent in filter(None, map(spent_by, messages)):
            # A node may have put an answer that was heard into a message of its own.
            heard = next((one for one in unseen if one.id == spent.id or one.usage == spent.usage), None)
            if heard is None:
                unheard.append(spent)
            else:
                unseen.remove(heard)
        return unheard

    def _answered(self, run_id: UUID, *, failed: str | None) -> _Asked | None:
        asked = self._asked.pop(run_id, None)
        if asked is not None:
            self._tell(
                self._telling.model_finished,
                asked.model,
                seconds=time.monotonic() - asked.begun,
                first_text=asked.first_text,
                failed=failed,
            )
        return asked

    def _tell(self, tell: Callable[..., None], *what: Any, **more: Any) -> None:
        """Nodes, tools and models that are not async run in threads; events are told on the loop."""
        if _running_loop() is self._loop:
            tell(*what, **more)
        else:
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(partial(tell, *what, **more))


@cache
def _warn_that_nothing_is_counted(model: str) -> None:
    """Warns once of each model."""
    logger.warning(
        "Model %s does not say what an answer costs that it streams, so its tokens are not counted. A ChatOpenAI with "
        "a base URL of its own says so with stream_usage=True.",
        one_line(model),
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _model(serialized: Mapping[str, Any] | None, more: Mapping[str, Any]) -> str:
    named = (more.get("metadata") or {}).get("ls_model_name")
    asked = more.get("invocation_params") or {}
    return str(named or asked.get("model") or asked.get("model_name") or (serialized or {}).get("name") or "")


def _message(output: Any, call_id: str) -> Any:
    """What a tool gave; of a command, the message for its call."""
    if not isinstance(output, Command):
        return output
    update = output.update if isinstance(output.update, Mapping) else {}
    messages = update.get("messages", ())
    return next((each for each in messages if getattr(each, "tool_call_id", None) == call_id), None)
