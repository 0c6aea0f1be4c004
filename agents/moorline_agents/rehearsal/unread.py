"""What the rules could not read of a message: before they act on one that says more than they understand, they ask."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from moorline_agents.rehearsal.words import named, person

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = """
a an the this that these those it its i im id ill ive me my mine you your youre we us our ours he she his her
him they them their who whom which what whats when whens where how there here one ones some any anything anyone
something am is are was were be been do does did done have has had having can could may might will would shall
should must need needs want wants wanted like love prefer make makes made get got getting take takes see come
comes coming go going give put let lets try fit squeeze book books booked booking schedule reschedule
rescheduled reserve arrange set sign change move push shift switch bring cancel cancelled call postpone delete
remove drop keep find look looking tell show say said mean meant know think hope hoping works work suit suits
sounds sound ask wondering rather please thanks thank thankyou cheers hi hello hey dear good morning afternoon
evening kind kindly sorry ok okay yes yeah yep sure great perfect fine lovely wonderful nice cool right alright
well oh ah no then so just also too again actually really very much all both everything appointment
appointments bookings reservation reservations visit visits session sessions slot slots time date day hair cut
haircut haircuts beard trim trims shave colour color colouring coloring check up checkup checkups dentist dental
doctor consultation service services treatment new another other same available free open possible dr mr mrs ms
prof with for to at on in of and as back down off out instead forward over ahead sharp exactly
"""
_HARMLESS = frozenset(_WORDS.split())
_CANCELLING = frozenset(["cant", "cannot", "wont", "not", "dont", "longer", "able", "unable", "every"])
_REFERENCE = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{8}\b")


def unread(rest: str, *, cancels: bool) -> tuple[str, ...]:
    """The words that may matter in `rest`, what is left of a plain text without its times and choices.

    Where somebody cancels, words that say no, or all, belong to that.
    """
    words = re.findall(r"\w+", _REFERENCE.sub(" ", rest))
    return tuple(word for word in words if word not in _HARMLESS and not (cancels and word in _CANCELLING))


def still_unread(words: Iterable[str], *, services: Iterable[str], people: Iterable[str]) -> tuple[str, ...]:
    """Those of the words that are no part of a name either."""
    things, persons = list(services), list(people)
    return tuple(word for word in words if named(word, things) is None and person(word, persons) is None)
