"""What a runtime uses by default: the agents that ship, and the model that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

from moorline.settings import Settings
from moorline_agents.agent import Agent
from moorline_agents.concierge import concierge
from moorline_agents.model import ChatModel, Model
from moorline_agents.responses_model import ResponsesModel
from moorline_agents.scheduling.agent import scheduling
from moorline_agents.scheduling.booking import Limits
from moorline_agents.scheduling.demo import TIME_ZONE

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger("moorline.model")


def shipped_agents(settings: Settings) -> Sequence[Agent]:
    """Scheduling and the concierge."""
    zone = settings.time_zone or (TIME_ZONE if settings.database_url is None else "UTC")
    books = scheduling(
        schema=settings.schema_name,
        time_zone=zone,
        limits=Limits(per_day=settings.bookings_per_day),
        confirm=settings.confirm_bookings,
    )
    return (books, concierge())


def server_model(
    settings: Settings, *, client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None, name: str | None = None
) -> ChatModel | ResponsesModel:
    """The model for the agents and the router, or the one of another `name`: behind the caller's client, the settings'
    server, or the rehearsal."""
    api: type[ChatModel | ResponsesModel] = ResponsesModel if settings.model_api == "responses" else ChatModel
    if client is None and not settings.has_model:
        client, api = _rehearsal, ChatModel
    model = name or settings.openai_model
    return api(client=client or _server(settings), model=model, timeout=settings.model_timeout)


def summary_model(
    settings: Settings,
    *,
    client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None,
    model: Model | None = None,
) -> Model | Literal["off"] | None:
    """What makes summaries, as `AgentDeps.summary` says, if the agents have this `model`; the rehearsal cannot."""
    name = settings.summary_model
    if (name or "").casefold() == "off":
        return "off"
    if client is None and not settings.has_model:
        return "off" if model is None else None
    return None if name is None else server_model(settings, client=client, name=name)


def _rehearsal() -> AsyncOpenAI:
    from moorline_agents.rehearsal import rehearsal_client  # noqa: PLC0415 - not needed with a real model

    _announce_rehearsal()
    return rehearsal_client()


@cache
def _announce_rehearsal() -> None:
    """Warns once per process that no real model answers."""
    logger.warning(
        "Neither OPENAI_API_KEY nor OPENAI_BASE_URL is set: the rehearsal model answers, plain rules that only know "
        "how to book appointments. Set one of the two for a real model."
    )


def _server(settings: Settings) -> Callable[[], AsyncOpenAI]:
    def connect() -> AsyncOpenAI:
        from openai import AsyncOpenAI  # noqa: PLC0415 - slow to import, and not needed before the first turn

        key = settings.openai_api_key
        return AsyncOpenAI(
            # A self-hosted server may need no key, but the client insists on one.
            api_key=key.get_secret_value() if key else "none",
            base_url=settings.openai_base_url,
            max_retries=settings.model_retries,
        )

    return connect
