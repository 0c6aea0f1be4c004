"""Questions that tools ask a person: what is stored of one, which words answer it, and what the tool gets back.

What a person means whose words are none of the options is left to `interpreting`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Self

MOST_OPTIONS = 100
"""Options that a question may have."""

_FORMS = (frozenset({"question", "options", "expires_at"}), frozenset({"question", "schema", "expires_at"}))
_CONFIRMS = "confirms"
_GIVEN = frozenset({"answer", "by", "said", "asked", "agrees", _CONFIRMS})
_MARKS = "?\N{ARABIC QUESTION MARK}\N{ARMENIAN QUESTION MARK}\N{ETHIOPIC QUESTION MARK}\N{INTERROBANG}"
"""What says that something is asked, once a text is normalised (NFKC)."""
_GREEK_MARK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]\s*;")
_PLACE = re.compile(r"[(#]?(\d{1,3})[\ufe0f\u20e3]*[.)]?")  # or as an emoji of a key
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_DECIMAL = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UnfitAnswer(Exception):
    """A `Resume` gave a question an answer that does not fit it. Nothing has been done, and the question waits on."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with options, or with the JSON schema of its answer."""

    text: str
    options: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    expires_at: str | None = None
    """A moment as in ISO 8601, with a time zone."""
    confirms: str | None = None
    """The digest of the call that a yes, the first option, lets run."""

    def __post_init__(self) -> None:
        if not all(isinstance(each, str) for each in (self.text, *self.options)):
            raise TypeError('A question and its options are texts: ask("Which?", options=("1", "2")).')
        if not self.text.strip():
            raise ValueError("A question must say something.")
        if bool(self.options) == (self.schema is not None):
            raise ValueError("A question has either options or a schema: pass one of them.")
        if len(self.options) > MOST_OPTIONS or len(set(map(folded, self.options))) != len(self.options):
            raise ValueError(f"The options of a question must differ, and there may be {MOST_OPTIONS} of them.")
        if not all(map(folded, self.options)):
            raise ValueError("Each option of a question must have a letter or a digit.")
        if self.expires_at is not None and datetime.fromisoformat(self.expires_at).tzinfo is None:
            raise ValueError("A question expires at a moment with a time zone.")

    @property
    def value(self) -> dict[str, Any]:
        """The question as plain JSON, which front ends get in `Reply.interrupt`."""
        form = {"options": list(self.options)} if self.options else {"schema": self.schema}
        own = {} if self.confirms is None else {_CONFIRMS: self.confirms}
        return {"question": self.text, **form, "expires_at": self.expires_at, **own}

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """The question whose `value` this is; None if it is anything else that a graph may ask."""
        if not isinstance(value, Mapping) or value.keys() - {_CONFIRMS} not in _FORMS:
            return None
        options, schema = value.get("options", []), value.get("schema", {})
        if not (isinstance(options, list | tuple) and isinstance(schema, Mapping)):
            return None
        try:
            return cls(
                text=value["question"],
                options=tuple(options),
                schema=value.get("schema"),
                expires_at=value["expires_at"],
                confirms=value.get(_CONFIRMS),
            )
        except (AttributeError, TypeError, ValueError):
            return None

    @property
    def form(self) -> str:
        """A digest of what fits the question: two with equal forms take the same answers."""
        return digest({"options": self.options, "schema": self.schema, _CONFIRMS: self.confirms})

    def option(self, text: str) -> str | None:
        """The option that the text is, whatever its case and the punctuation around it; or whose number it is, unless
        numbers mean something else here: the question or an option has some, or a yes to a call is to be said."""
        said = folded(text)
        for option in self.options:
            if folded(option) == said:
                return option
        number = _PLACE.fullmatch(unicodedata.normalize("NFKC", text).strip())
        numbers = self.confirms is not None or any(any(map(str.isdecimal, each)) for each in (self.text, *self.options))
        if number and not numbers and 0 < int(number[1]) <= len(self.options):
            return self.options[int(number[1]) - 1]
        return None

    def bare(self, text: str) -> Any:
        """The answer that a text is beyond doubt: an option, or the value of a schema's only field, if that is a
        number, a day or one of some words. None if it takes more to know that."""
        if self.schema is None:
            return self.option(text)
        fields = self.schema.get("properties")
        if not isinstance(fields, Mapping) or len(fields) != 1:
            return None
        ((name, field),) = fields.items()
        value = _bare_value(field, text.strip())
        return None if value is None else {name: value}


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer as the run that goes on gets it."""

    answer: Any
    by: str | None = None
    """Who gave it, if not the person."""
    said: str | None = None
    """The person's own words, if they answered in words."""
    asked: str | None = None
    """The form of the question that it answers; None if the run was continued without a manager."""
    confirms: str | None = None
    """The call that the question was to confirm."""
    agrees: bool = False
    """Whether it is the question's first option."""

    @property
    def value(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def to(cls, question: Question, answer: Any, *, by: str | None = None, said: str | None = None) -> Self:
        """The answer to a question."""
        agrees = bool(question.options) and answer == question.options[0]
        return cls(answer=answer, by=by, said=said, asked=question.form, confirms=question.confirms, agrees=agrees)

    @classmethod
    def of(cls, value: Any) -> Self:
        """What an `interrupt` returned."""
        if isinstance(value, dict) and value.keys() == _GIVEN:
            return cls(**value)
        return cls(answer=value)


def ask(question: Question, stopped: list[Exception] | None = None) -> Given:
    """Stops the run to ask, by an exception that is also put into `stopped`; when it goes on, the answer."""
    from langgraph.types import interrupt  # noqa: PLC0415 - slow to import, and tools that ask nothing need it not

    try:
        return Given.of(interrupt(question.value))
    except Exception as asking:
        if stopped is not None:
            stopped.append(asking)
        raise


def digest(value: Any) -> str:
    """A digest of JSON, whatever the order of its names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return sha256(text.encode()).hexdigest()


def folded(text: str) -> str:
    """A text without case, and without punctuation and space around it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    begin, end = 0, len(plain)
    while begin < end and not _counts(plain[begin]):
        begin += 1
    while end > begin and not _counts(plain[end - 1]):
        end -= 1
    return plain[begin:end]


def asks_back(text: str) -> bool:
    """Whether a text has a question mark, in whatever script."""
    plain = unicodedata.normalize("NFKC", text)
    return any(mark in plain for mark in _MARKS) or _GREEK_MARK.search(plain) is not None


def _counts(character: str) -> bool:
    """Whether it says something, as letters, digits and symbols do, and question marks, of which Greek's is `;`."""
    return unicodedata.category(character)[0] in "LMNS" or character in _MARKS or character == ";"


def _bare_value(field: object, text: str) -> Any:
    match field:
        case {"enum": [*words]}:
            meant = [word for word in words if isinstance(word, str) and folded(word) == (folded(text) or None)]
            return meant[0] if len(meant) == 1 else None
        case {"type": "integer"} if _WHOLE.fullmatch(text):
            return int(text)
        case {"type": "number"} if _DECIMAL.fullmatch(text):
            return float(text)
        case {"type": "string", "format": "date"} if _DAY.fullmatch(text):
            return text
    return None
