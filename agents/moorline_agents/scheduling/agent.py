"""The scheduling agent: its instructions and its tools."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from moorline_agents.agent import Agent
from moorline_agents.scheduling.booking import Limits, Rules
from moorline_agents.scheduling.calendar import HORIZON, spoken
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_agents.scheduling.wording import Wording, wording_in
from moorline_migrations.components import SCHEDULING
from moorline_migrations.errors import ConfigurationError

if TYPE_CHECKING:
    from moorline_agents.model import Model
    from moorline_agents.tools import ToolContext

INSTRUCTIONS = """\
You make appointments for this business: you find free times, book, list, move and cancel.

- Services, providers, free times and appointments come from your tools only; the calendar changes while you
  talk, so never answer from memory. Call find_slots without a service to learn what is offered.
- Before you book, you must know the service, the exact day and time, and that the person wants it. If they named all
  of this, book; otherwise offer two or three free times. Do not ask for a provider unless they care.
- Pass a time on as a tool gave it, offset included. Say it as people do: "Monday 1 June at 14:30".
- Say that something is booked, moved or cancelled only after the tool has said so, and then name day, time,
  provider and reference.
- If a tool answers with an error, tell the person why in a few words, and offer what comes with it: free `slots`,
  `appointments` to choose from, `services`, `providers`.
- Move or cancel only what the person asked for; ask which one if there are several.
- When they are done, say thanks or goodbye, or want nothing more, call end_session and close kindly.
- When they want something that is not about appointments, call hand_over at once.

Answer {language}, in one to three sentences. The briefing with their last message says what time it is
now: count "today", "tomorrow" and weekdays from that."""

BRIEFING = "Now it is {now}, time zone {zone}."

ASKS = """
Calling book, move or cancel asks the person for their yes, and does nothing without it: do not ask for it yourself."""


def scheduling(
    *,
    schema: str = "public",
    time_zone: str = "UTC",
    model: Model | None = None,
    session_ttl: int | None = None,
    instructions: str = "",
    language: str | None = None,
    lead_time: timedelta = timedelta(),
    horizon: timedelta = HORIZON,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    confirm: bool | Wording = True,
) -> Agent:
    """The agent that books in the tables of `schema`; it keeps the session until the person is done.

    The agent is told the time in `time_zone` (an IANA name); appointments are in the provider's own zone. They begin
    between `lead_time` and `horizon` from now, and a device makes no more of them than `limits` allow, whatever a model
    asks for. `instructions` are added to the agent's own, for what is special about the business. It answers in
    `language` (`"German"`), or without one in the person's. Before it books, moves or cancels, the person is asked and
    has to say yes, in `language` if there is a wording in it, else in English; `confirm` turns that off, or is the
    wording.
    Raises `ConfigurationError` for a schema name or time zone that is not valid, or if nothing could be booked.
    """
    zone = _zone(time_zone)
    wording = (wording_in(language) if confirm else None) if isinstance(confirm, bool) else confirm
    rules = Rules(limits=limits, lead_time=lead_time, horizon=horizon)
    own = INSTRUCTIONS.format(language=f"in {language}" if language else "in the person's language")
    own = own if wording is None else f"{own}\n{ASKS}"

    def briefing(context: ToolContext) -> str:
        return BRIEFING.format(now=spoken(context.now, zone), zone=zone.key)

    return Agent(
        name="scheduling",
        description="appointments: what can be booked, free times, booking, listing, moving and cancelling",
        instructions=f"{own}\n\n{instructions}" if instructions else own,
        briefing=briefing,
        tools=scheduling_tools(schema=schema, rules=rules, wording=wording),
        model=model,
        session_ttl=session_ttl,
        migrations=SCHEDULING,
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{name!r} is not a time zone known here: use an IANA name such as Europe/Berlin, "
            "or install the tzdata package if this system has no time zones."
        ) from error
