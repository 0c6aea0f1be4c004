"""Which words answer a question beyond doubt, and which certainly do not."""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moorline_agents.interpreting import LONGEST, says_more
from moorline_agents.questions import Question
from moorline_agents.tools import ToolContext

DISH = Question(text="Which dish?", options=("soup", "fish"))
BOOKING = Question(text="Shall I book it at 9:00?", options=("yes", "no"), confirms="digest")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("soup", "soup"),
        (" SOUP!! ", "soup"),
        ("“Soup”.", "soup"),
        ("soup\N{ZERO WIDTH SPACE}", "soup"),
        ("2", "fish"),
        ("(2)", "fish"),
        ("#1.", "soup"),
        ("2\ufe0f\u20e3", "fish"),  # the emoji of a key
        ("\N{FULLWIDTH DIGIT TWO}", "fish"),
        ("\N{ARABIC-INDIC DIGIT TWO}", "fish"),
        ("3", None),
        ("0", None),
        ("-1", None),
        ("2?", None),
        ("soup?", None),
        ("soup\N{FULLWIDTH QUESTION MARK}", None),
        ("soup\N{ARABIC QUESTION MARK}", None),
        ("soup\N{ARMENIAN QUESTION MARK}", None),
        ("soup;", None),  # as Greeks ask
        ("soup\N{GREEK QUESTION MARK}", None),
        ("~soup~", None),
        ("soup \N{THUMBS UP SIGN}", None),
        ("no soup", None),
        ("soup or fish", None),
        ("\N{THUMBS UP SIGN}", None),
        ("", None),
    ],
)
def test_a_text_is_an_option_or_not(text: str, option: str | None) -> None:
    assert DISH.option(text) == option


@pytest.mark.parametrize(
    "question",
    [
        BOOKING,
        Question(text="Pay?", options=("yes", "no"), confirms="digest"),
        Question(text="At 9: inside or outside?", options=("inside", "outside")),
        Question(text="When?", options=("at 9", "at 10")),
    ],
)
def test_a_number_is_no_option_where_it_may_mean_something_else(question: Question) -> None:
    assert question.option("1") is None


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("ja gern", False),
        ("yes, at 9", False),
        ("ja, um 09:00", False),
        ("\N{ARABIC-INDIC DIGIT NINE} yes", False),
        ("yes but at 10", True),
        ("yes, at \N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT ZERO}", True),
        ("yes?", True),
        ("ναι;", True),  # noqa: RUF001 - as Greeks ask
        ("yes; thanks", False),
        ("yes" + " please" * LONGEST, True),
        ("9" * 10_000, True),
    ],
)
def test_a_text_certainly_says_more_than_an_option(text: str, more: bool) -> None:
    assert says_more(BOOKING, text) is more


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "integer"}, "12", 12),
        ({"type": "integer"}, "a dozen", None),
        ({"type": "integer"}, "1" * 30, None),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "number"}, "1,5", None),
        ({"type": "string", "format": "date"}, "2026-06-01", "2026-06-01"),
        ({"type": "string", "format": "date"}, "tomorrow", None),
        ({"type": "string"}, "anything", None),
        ({"enum": ["Inside", "garden"]}, "inside.", "Inside"),
        ({"enum": ["a", "A"]}, "a", None),
        ({"enum": ["", "x"]}, "!", None),
        ({}, "x", None),
    ],
)
def test_a_text_is_the_value_of_an_only_field_beyond_doubt(field: dict[str, Any], text: str, value: Any) -> None:
    question = Question(text="How?", schema={"properties": {"field": field}})
    assert question.bare(text) == (None if value is None else {"field": value})


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"options": ("Yes", "yes!")}, "must differ"),
        ({"options": ()}, "either options or a schema"),
        ({"options": ("yes", "!.")}, "a letter or a digit"),
        ({"text": " "}, "must say something"),
        ({"expires_at": "2026-01-01T00:00:00"}, "time zone"),
        ({"expires_at": "soon"}, "isoformat"),
    ],
)
def test_a_question_that_could_not_be_asked_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Question(**{"text": "Which?", "options": ("a", "b"), **changed})


def _no_transaction() -> AbstractAsyncContextManager[Any]:
    raise AssertionError


@pytest.mark.parametrize(
    "wrong",
    [{"options": (1, 2)}, {"options": "yes"}, {"schema": {"type": "object"}}, {"schema": dict}, {"options": [None]}],
)
async def test_what_is_no_form_of_an_answer_is_refused_with_what_is_one(wrong: dict[str, Any]) -> None:
    context = ToolContext(device_id="d1", now=datetime.now(UTC), values={}, transaction=_no_transaction)
    with pytest.raises(TypeError, match=r"options=\("):
        await context.ask("Which?", **wrong)


@pytest.mark.parametrize("expires", [0, -1, float("nan"), float("inf"), timedelta(hours=1), "3600"])
async def test_a_time_that_could_not_be_kept_is_refused(expires: Any) -> None:
    context = ToolContext(device_id="d1", now=datetime.now(UTC), values={}, transaction=_no_transaction)
    with pytest.raises(ValueError, match="a positive number of seconds"):
        await context.ask("Which?", options=("a", "b"), expires=expires)
