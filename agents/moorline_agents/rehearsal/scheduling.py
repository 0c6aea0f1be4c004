"""The rehearsal of the scheduling agent: decides which tool it calls next, or what it says."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from moorline_agents.rehearsal.agents import END_SESSION, HAND_OVER, agents_of, hand_over, picked
from moorline_agents.rehearsal.conversation import events_of, latest_results, now_of
from moorline_agents.rehearsal.dialogue import NOT_CONFIRMED, UNSURE, dialogue_of
from moorline_agents.rehearsal.intents import Intent, Tone, about_appointments
from moorline_agents.rehearsal.visits import visit_of
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorline_agents.rehearsal.conversation import Result
    from moorline_agents.rehearsal.dates import When
    from moorline_agents.rehearsal.dialogue import Dialogue, Wish
    from moorline_agents.rehearsal.intents import Said
    from moorline_agents.rehearsal.visits import Visit
    from moorline_agents.transport import ModelRequest

TOOLS = frozenset({"find_slots", "book", "list_appointments", "move", "cancel"})

_OTHER_WORDS = "I could not finish that, so please say it again in other words."
_ANYTHING_ELSE = "Is there anything else I can do for you?"
_HELP = "I can find free times, book appointments, list yours, move or cancel them. What would you like to do?"
_GRID = timedelta(minutes=15)
_QUESTIONS = {Intent.LIST: "list_appointments", Intent.SERVICES: "find_slots"}
_ALL = re.compile(r"\b(?:all|both|every|everything)\b")
_CHANGES = frozenset({"book", "move", "cancel"})
_IN_DIGITS = "If not, please write the day and the time in digits, such as 2026-12-01 10:30."
_OWN_FAULTS = frozenset({"wrong_arguments", "unknown_tool", "unknown_agent"})


def reply(request: ModelRequest) -> ModelReply:
    """The next answer of the scheduling agent."""
    dialogue = dialogue_of(events_of(request), now_of(request))
    results = latest_results(request)
    answer = _after(dialogue, results) if results else _at_once(dialogue, request)
    if answer.calls and request.tool_choice == "none":
        return _say(_OTHER_WORDS)
    return answer


def _at_once(dialogue: Dialogue, request: ModelRequest) -> ModelReply:
    """The answer to the person's last message."""
    said = dialogue.said
    if dialogue.declines:
        return _call(END_SESSION) if END_SESSION in request.functions else _say(_goodbye(said))
    if said.intent in _QUESTIONS:
        return _call(_QUESTIONS[said.intent])
    peer = picked(agents_of(request.functions.get(HAND_OVER)), said)
    if peer is not None and _is_elsewhere(dialogue):
        return hand_over(peer, "not about appointments")
    if dialogue.wish is not None:
        return _toward(dialogue, dialogue.wish)
    return _say(_small_talk(said))


def _is_elsewhere(dialogue: Dialogue) -> bool:
    """Whether the message is another agent's business: the router would not have sent it here, and it is neither small
    talk nor an answer to a question."""
    said = dialogue.said
    if about_appointments(said):
        return False
    waiting = dialogue.wish is not None and (dialogue.answers or not said.question)
    return said.off_topic or not (said.tones or waiting)


def _goodbye(said: Said) -> str:
    return "You're welcome. Goodbye!" if Tone.THANKS in said.tones else "All right. Goodbye!"


def _small_talk(said: Said) -> str:
    if Tone.NEVER_MIND in said.tones:
        return f"All right, I leave it as it is. {_ANYTHING_ELSE}"
    if Tone.THANKS in said.tones:
        return f"You're welcome. {_ANYTHING_ELSE}"
    return f"Hello! {_HELP}" if Tone.GREETING in said.tones else _HELP


def _toward(dialogue: Dialogue, wish: Wish) -> ModelReply:
    """The next step towards the wish; a question first if more was said than was understood."""
    step = _step(dialogue, wish)
    if any(call.name in _CHANGES for call in step.calls) and dialogue.doubts():
        return _say(f"{UNSURE} {_shall(dialogue, step.calls)} {_IN_DIGITS}")
    return step


def _shall(dialogue: Dialogue, calls: Sequence[Call]) -> str:
    """Asks whether to make these calls, in words."""
    visits = {visit.reference: str(visit) for visit in dialogue.visits or ()}
    arguments = [call.arguments for call in calls if not isinstance(call.arguments, str)]
    if calls[0].name == "cancel":
        return f"Shall I cancel {' and '.join(visits[given['reference']] for given in arguments)}?"
    (given,) = arguments
    provider = f" with {given['provider']}" if "provider" in given else ""
    start = datetime.fromisoformat(given["start"])
    when = f"{start:%A} {start.day} {start:%B %Y}, {start:%H:%M}"
    if calls[0].name == "move":
        return f"Shall I move {visits[given['reference']]} to {when}{provider}?"
    return f"Shall I book {given['service']}{provider} on {when}?"


def _step(dialogue: Dialogue, wish: Wish) -> ModelReply:
    if wish.goal in (Intent.BOOK, Intent.FIND):
        return _toward_booking(dialogue, wish)
    if dialogue.visits is None:
        return _call("list_appointments")
    candidates = dialogue.candidates()
    if not candidates and len(dialogue.visits) == 1 and (wish.agreed or _is_target(wish)):
        candidates = dialogue.visits
    if wish.goal is Intent.CANCEL and candidates and _ALL.search(wish.texts[-1]):
        return ModelReply(calls=tuple(_cancel(visit) for visit in candidates))
    if len(candidates) != 1:
        return _ask_which(dialogue.visits, candidates, wish)
    if wish.goal is Intent.CANCEL:
        return ModelReply(calls=(_cancel(candidates[0]),))
    return _toward_move(dialogue, wish, candidates[0])


def _cancel(visit: Visit) -> Call:
    return Call(name="cancel", arguments={"reference": visit.reference})


def _is_target(wish: Wish) -> bool:
    """Whether the time that was named can only be the new time of an appointment."""
    return wish.goal is Intent.MOVE and bool(wish.about) and not wish.when


def _ask_which(visits: Sequence[Visit], candidates: Sequence[Visit], wish: Wish) -> ModelReply:
    if candidates:
        return _say(f"Which one do you mean? {_numbered([str(visit) for visit in candidates])}")
    listed = _numbered([str(visit) for visit in visits])
    if len(visits) == 1:
        verb = "cancel" if wish.goal is Intent.CANCEL else "move"
        return _say(f"I see no such appointment. You have {visits[0]}. Shall I {verb} that one?")
    return _say(f"I see no such appointment. These are yours, which one do you mean? {listed}")


def _toward_booking(dialogue: Dialogue, wish: Wish) -> ModelReply:
    if dialogue.services is None:
        return _call("find_slots")
    service = dialogue.service()
    if service is None:
        head = "That is nothing I can book." if dialogue.said.treatment else "What is it for?"
        return _say(f"{head} {_offered(dialogue)}")
    details = {"service": service.name, "provider": dialogue.provider()}
    if wish.offer is not None:
        return _call("book", start=wish.offer.start, **details)
    day, at = wish.when.day, wish.when.clock.at
    if day is None and at is not None and not wish.when.soonest:
        return _say(f"On which day would you like to come at {at:%H:%M}?")
    if day is not None and at is not None and wish.goal is Intent.BOOK:
        return _call("book", start=_start(day, at), **details)
    return _call("find_slots", **details, **_search(wish.when))


def _toward_move(dialogue: Dialogue, wish: Wish, visit: Visit) -> ModelReply:
    if dialogue.services is None and " with " in wish.texts[-1]:
        return _call("find_slots")  # to know whom they may mean
    when = wish.about if _is_target(wish) and visit not in dialogue.candidates() else wish.when
    provider = dialogue.provider()
    change = {"reference": visit.reference, "provider": None if provider == visit.provider else provider}
    if wish.offer is not None:
        return _call("move", start=wish.offer.start, **change)
    if when.clock.at is not None:
        day = when.day or visit.local.date()
        return _call("move", start=_start(day, when.clock.at), **change)
    return _call("find_slots", service=visit.service, provider=provider or visit.provider, **_search(when))


def _start(day: date, at: time) -> str:
    return datetime.combine(day, at).isoformat(timespec="minutes")


def _search(when: When) -> dict[str, Any]:
    clock = when.clock
    after, before = clock.after, clock.before
    if clock.at is not None:
        after, before = clock.at, (datetime.combine(datetime.min, clock.at) + _GRID).time()
    return {
        "day": None if when.day is None else when.day.isoformat(),
        "after": None if after is None else after.isoformat(timespec="minutes"),
        "before": None if before is None else before.isoformat(timespec="minutes"),
    }


def _after(dialogue: Dialogue, results: Sequence[Result]) -> ModelReply:
    """The answer to the tools' results."""
    refused = next((result for result in results if result.error is not None), None)
    text = _told(dialogue, results) if refused is None else _sorry(refused, dialogue)
    if text is not None:
        return _say(text)
    return _say(_HELP) if dialogue.wish is None else _toward(dialogue, dialogue.wish)


def _told(dialogue: Dialogue, results: Sequence[Result]) -> str | None:
    """What the person is told about the results; None if they were only a step on the way."""
    result, asked = results[-1], dialogue.said.intent
    text = None
    match result.tool:
        case "book" | "move" | "cancel":
            text = f"{' '.join(map(_done, results))} {_ANYTHING_ELSE}"
        case "end_session":
            text = _goodbye(dialogue.said)
        case "list_appointments" if asked is Intent.LIST or not dialogue.visits:
            text = _listed(dialogue.visits or ())
        case "find_slots" if "services" not in result.content:
            text = _free(dialogue, result)
        case "find_slots" if asked is Intent.SERVICES:
            text = _offered(dialogue)
    return text


def _done(result: Result) -> str:
    visit = visit_of(result.content["appointment"])
    status = str(result.content.get("status", "done"))
    reference = "" if result.tool == "cancel" else f" The reference is {visit.reference}."
    return f"{status.capitalize()}: {visit}.{reference}"


def _listed(visits: Sequence[Visit]) -> str:
    if not visits:
        return "You have no upcoming appointments. Would you like to book one?"
    return f"You have {_numbered([f'{visit} (reference {visit.reference})' for visit in visits])} {_ANYTHING_ELSE}"


def _offered(dialogue: Dialogue) -> str:
    services = dialogue.services or ()
    if not services:
        return "I am sorry, nothing can be booked yet."
    told = [f"{each.name} ({each.minutes} minutes, with {' or '.join(each.providers)})" for each in services]
    return f"You can book {'; '.join(told)}. Which would you like?"


def _free(dialogue: Dialogue, result: Result) -> str:
    service, note = result.content.get("service", "that"), result.content.get("note")
    offers, wish = dialogue.offers, dialogue.wish
    if not offers:
        return f"{note or 'Nothing is free then.'} Which other day or time would suit you?"
    if len(offers) == 1 and note is None:
        verb = "move your appointment there" if wish and wish.goal is Intent.MOVE else "book it"
        return f"{offers[0].spoken} is free for {service}. Shall I {verb}?"
    head = note or f"These times are free for {service}:"
    return f"{head} {_numbered([offer.spoken for offer in offers])} Which one suits you?"


def _sorry(refused: Result, dialogue: Dialogue) -> str:
    """What the person is told and asked after a refusal."""
    if refused.code in _OWN_FAULTS:
        return _OTHER_WORDS
    if refused.code == "no_appointment":
        return _listed(())
    if refused.code == NOT_CONFIRMED:
        instead = "Which other day or time would suit you?" if refused.tool == "book" else _ANYTHING_ELSE
        return f"All right, I leave it as it is. {instead}"
    return f"I am sorry. {refused.error} {_instead(refused, dialogue)}"


def _instead(refused: Result, dialogue: Dialogue) -> str:
    """What can be done instead, as a question."""
    offers, content = [offer.spoken for offer in dialogue.offers], refused.content
    text = "Which other day or time would suit you?"
    match refused.code:
        case "repeated_hour" if offers:
            text = f"Which one do you mean? {_numbered(offers)}"
        case "which_appointment":
            text = f"These are yours: {_numbered([str(visit) for visit in dialogue.visits or ()])}"
        case "unknown_service":
            text = f"You can book {'; '.join(content['services'])}. Which would you like?"
        case "unknown_provider":
            text = f"Would {' or '.join(content['providers'])} suit you?"
        case "no_services" | "begun" | "cancelled" | "too_many":
            text = _ANYTHING_ELSE
        case _ if offers:
            text = f"The next free times for {content['service']}: {'; '.join(offers)}. Which one suits you?"
        case "past" | "too_far":
            text = "Which other day would suit you?"
    return text


def _numbered(things: Sequence[str]) -> str:
    if len(things) == 1:
        return f"{things[0]}."
    return f"{'; '.join(f'{number}. {thing}' for number, thing in enumerate(things, start=1))}."


def _say(text: str) -> ModelReply:
    return ModelReply(text=text)


def _call(tool: str, **arguments: str | None) -> ModelReply:
    given = {name: value for name, value in arguments.items() if value is not None}
    return ModelReply(calls=(Call(name=tool, arguments=given),))
