"""The rehearsal model: plain rules in place of a model, for use without a key.

It sees what a model sees and nothing else, answers in English, gives the same answer to the same request, and keeps
nothing between requests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from moorline_agents.rehearsal import answers, concierge, echo, router, scheduling
from moorline_agents.rehearsal.agents import CONCIERGE, HAND_OVER, ROUTE
from moorline_agents.rehearsal.conversation import has_files
from moorline_agents.transport import ModelReply, ModelRequest, rule_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI


_UNSEEN = "I cannot see pictures or files in a rehearsal."


def rehearse(request: ModelRequest) -> ModelReply:
    """The rehearsal model's answer to `request`, in the role that its tools and system text give it."""
    answer = _in_role(request)
    unseen = request.messages[-1]["role"] == "user" and has_files(request.messages[-1])
    return replace(answer, text=f"{_UNSEEN} {answer.text}") if answer.text and unseen else answer


def _in_role(request: ModelRequest) -> ModelReply:
    offered = request.functions.keys()
    if offered == {answers.ANSWER}:
        return answers.reply(request)
    if ROUTE in offered:
        return router.reply(request)
    if offered >= scheduling.TOOLS:
        return scheduling.reply(request)
    if CONCIERGE in request.system.lower() and offered <= {HAND_OVER}:
        return concierge.reply(request)
    return echo.reply(request)


def rehearsal_client() -> AsyncOpenAI:
    """A real OpenAI client whose model is the rehearsal model."""
    return rule_client(rehearse)
