"""What a person wants, going by their words alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from moorline_agents.rehearsal.dates import find_when
from moorline_agents.rehearsal.words import plain

ANY_DAY = datetime(2000, 1, 3)
"""Any day will do: it does not affect whether a text names a time."""


class Intent(Enum):
    """What one message asks for."""

    BOOK = "book"
    FIND = "find"
    MOVE = "move"
    CANCEL = "cancel"
    LIST = "list"
    SERVICES = "services"


class Tone(Enum):
    """What a message says besides, or instead of, asking for something."""

    FAREWELL = "farewell"
    THANKS = "thanks"
    NEVER_MIND = "never mind"
    NO = "no"
    YES = "yes"
    HELP = "help"
    GREETING = "greeting"


_VISIT = r"(?:appointments?|bookings?|reservations?|visits?|sessions?)"
_TREATMENT = (
    r"(?:hair ?cuts?|hair|beard|trim|shave|colou?r(?:ing)?|consultation|dentist|dental|check-?up|therapist|"
    r"doctor|massage|manicure|treatment)"
)
_INTENTS = tuple(
    (intent, re.compile(pattern))
    for intent, pattern in (
        (
            Intent.CANCEL,
            r"\bcancel|\bcall (?:it |that )?off\b|\b(?:cant|cannot|wont|will not) (?:make|come)\b|"
            r"\bno longer (?:need|want)\b|"
            rf"\b(?:delete|remove|drop)\b.*\b(?:{_VISIT}|it|one)\b",
        ),
        (
            Intent.MOVE,
            r"\bre-?schedul|\bpostpone|\bbring .*forward\b|\b(?:another|different) (?:time|day) for my\b|"
            r"\b(?:move|shift|push|change|switch)\b.*"
            rf"\b(?:{_VISIT}|{_TREATMENT}|it|that|time|day|one|from|to)\b",
        ),
        (
            Intent.LIST,
            rf"\b(?:whats?|which|any|list|show|see|check|tell me|all)\b.*\bmy\b.*\b{_VISIT}\b|\bremind me\b|"
            r"\b(?:whens?|what time)\b(?: is| are| am| was)?(?: my| i)\b|\bmy next\b|"
            rf"\b(?:what|which)(?: {_VISIT})? (?:do|have) i (?:have|got|booked)\b|\bhave i (?:got|booked)\b|"
            rf"\bdo i (?:already |still )?have\b|\bam i booked\b|\bupcoming {_VISIT}\b",
        ),
        (
            Intent.SERVICES,
            r"\b(?:whats?|which|all)\b.*\b(?:services|treatments|do you (?:offer|have on offer)|can i (?:book|get))\b|"
            r"\bdo you (?:offer|do)\b|\bhow long (?:does|is|do|will)\b|\bwho (?:does|offers|works|can)\b|"
            r"\b(?:list|show|tell)\b.*\b(?:services|treatments)\b",
        ),
        (
            Intent.FIND,
            r"\b(?:free|availab\w*|openings?|slots?|vacanc\w+)\b|\bwhen (?:can|could|are you|do you)\b|"
            r"\b(?:what|which|any|other|another) (?:times?|days?)\b|\bare you open\b|\bopening hours\b|"
            r"\b(?:do|would|have) you (?:have|got) (?:anything|something|time|space)\b",
        ),
        (
            Intent.BOOK,
            r"(?<!\ba )(?<!\bthe )\bbook(?:ed|ing)?\b|\breserve\b|\bschedule\b|\b(?:fit|get|squeeze) me in\b|"
            rf"\bput me down\b|\bsign me up\b|\b(?:make|need|want|like|have|get|a new|another)\b.*\b{_VISIT}\b",
        ),
    )
)
_TONES = tuple(
    (tone, re.compile(pattern))
    for tone, pattern in (
        (
            Tone.FAREWELL,
            r"\b(?:good ?bye|bye|see you|thats (?:all|it|everything)|that is (?:all|it|everything)|"
            r"that (?:was|will be|would be) (?:all|it|everything)|thatll be all|nothing else|"
            r"im (?:all )?(?:done|set|good)|i am done|all set|"
            r"(?:have|enjoy) (?:a|the|your) .*\b(?:day|evening|weekend|one)|ciao|take care|good night)\b",
        ),
        (Tone.NEVER_MIND, r"\b(?:never ?mind|forget (?:it|that|about it)|leave it|changed my mind|scrap that)\b"),
        (Tone.NO, r"^(?:no|nope|nah|not really|none|neither|dont|do not)\b"),
        (Tone.THANKS, r"\b(?:thanks?|thank you|thx|cheers|much appreciated)\b"),
        (
            Tone.YES,
            r"^(?:(?:oh|ok|and|great|perfect|well),? )?(?:yes|yeah|yep|yup|sure|ok|okay|alright|please do|go ahead|"
            r"perfect|great|fine|lovely|exactly|correct|right|do it|thats right|sounds good|that works|works for me|"
            r"that (?:one|sounds good|is fine|would be \w+)|thats (?:fine|good|great|perfect)|ill take it|book it)\b",
        ),
        (Tone.HELP, r"\bwhat (?:can|do) you do\b|\b(?:can|could) you help|\bhelp\b|\bhow does this work\b"),
        (Tone.GREETING, r"^(?:hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day))\b"),
    )
)
_MENTIONED_VISIT = re.compile(rf"\b{_VISIT}\b")
_MENTIONED_TREATMENT = re.compile(rf"\b{_TREATMENT}s?\b")
_QUESTION = re.compile(r"(?:what|who|where|why|how|do|does|is|are|can|could|would|will)\b")
_OFF_TOPIC = re.compile(
    r"\b(?:jokes?|weather|forecast|rain(?:ing)?|sunny|snow(?:ing)?|news|recipes?|songs?|sing|poems?|stor(?:y|ies)|"
    r"football|match|movies?|films?|capital of|translate|meaning of|president|stocks?|bitcoin|restaurants?|train|"
    r"flight|hotel|who are you|your name|are you (?:a )?(?:human|real|robot|bot|person)|what are you|"
    r"how are you|how old)\b|"
    r"\d\s*[+*/x]\s*\d+\s*\?|\bwho (?:won|is|was|invented|wrote)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message as the rules read it."""

    text: str
    """Plain, see `words.plain`."""
    intent: Intent | None
    visit: bool
    """Whether it speaks of appointments."""
    treatment: bool
    """Whether it mentions something that appointments are commonly for."""
    speaks_of_time: bool
    question: bool
    tones: frozenset[Tone]
    off_topic: bool


def read(message: str) -> Said:
    """Reads what `message` asks for, and how."""
    text = plain(message)
    found = (intent for intent, pattern in _INTENTS if pattern.search(text))
    return Said(
        text=text,
        intent=next(found, None),
        visit=_MENTIONED_VISIT.search(text) is not None,
        treatment=_MENTIONED_TREATMENT.search(text) is not None,
        speaks_of_time=bool(find_when(text, ANY_DAY)),
        question=text.endswith("?") or _QUESTION.match(text) is not None,
        tones=frozenset(tone for tone, pattern in _TONES if pattern.search(text)),
        off_topic=_OFF_TOPIC.search(text) is not None,
    )


def about_appointments(said: Said) -> bool:
    """Whether the message is the scheduling agent's business, going by the message alone.

    The router, the concierge and the scheduling agent all use it, so none hands back what was handed to it.
    """
    if said.intent is not None or said.visit or said.treatment:
        return True
    return said.speaks_of_time and not said.off_topic and Tone.FAREWELL not in said.tones
