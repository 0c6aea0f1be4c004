"""Where a text is cut while it is written: at ends of sentences and lines, wherever its pieces were split."""

import random

import pytest

from moorline_agents.sentences import Sentences

CUT = {
    "One. Two! Three?": ["One.", "Two!", "Three?"],
    "It costs 3.5 euros. See https://a.example/b.c?d=e. Bye": [
        "It costs 3.5 euros.",
        "See https://a.example/b.c?d=e.",
        "Bye",
    ],
    "今日は休みです。明日は？「はい。」と言う": ["今日は休みです。", "明日は？", "「はい。」", "と言う"],  # noqa: RUF001
    'He said "No." Then… Really?! Yes': ['He said "No."', "Then…", "Really?!", "Yes"],
    "A list:\n1. one\n2. two. three\n\n- four": ["A list:", "1. one", "2. two.", "three", "- four"],
    "**Bold.** _Soft._ (So.) `code.py` done": ["**Bold.**", "_Soft._", "(So.)", "`code.py` done"],
    "no end": ["no end"],
    "  \n": [],
    "": [],
    "Wait... what. \n": ["Wait...", "what."],
    "هل أنت هنا؟ نعم": ["هل أنت هنا؟", "نعم"],
    "a.b.c\r\nd": ["a.b.c", "d"],
    "Բարև։ Ինչպե՞ս ես։ Լավ": ["Բարև։", "Ինչպե՞ս ես։", "Լավ"],  # noqa: RUF001
    "မင်္ဂလာပါ။ နေကောင်းလား။ ဟုတ်": ["မင်္ဂလာပါ။", "နေကောင်းလား။", "ဟုတ်"],
    "សួស្តី។ បាទ": ["សួស្តី។", "បាទ"],
    "नमस्ते। कैसे हैं? ठीक": ["नमस्ते।", "कैसे हैं?", "ठीक"],
    "Dr. Weber comes at 9 a.m. on 3.5. See `a.b(c.d)`.": ["Dr.", "Weber comes at 9 a.m.", "on 3.5.", "See `a.b(c.d)`."],
    "```python\nx = 1. \ny.z()\n```\nDone": ["```python", "x = 1.", "y.z()", "```", "Done"],
}


def cut(pieces: list[str]) -> tuple[list[str], str]:
    """The sentences, and all of the text."""
    sentences = Sentences()
    parts = [part for piece in pieces for part in sentences.add(piece)] + sentences.end()
    return [part.sentence for part in parts if part.sentence], "".join(part.space + part.sentence for part in parts)


@pytest.mark.parametrize("text", CUT)
def test_a_text_is_cut_at_the_same_places_however_it_comes(text: str) -> None:
    splits = random.Random(text)  # noqa: S311 - nothing is secret
    assert cut([text]) == cut([*text]) == (CUT[text], text)
    for _ in range(50):
        at = sorted(splits.sample(range(len(text) + 1), min(len(text), 3)))
        pieces = [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]
        assert cut(pieces) == (CUT[text], text)


def test_a_sentence_is_there_as_soon_as_it_can_be() -> None:
    sentences = Sentences()
    assert sentences.add("Hello") == []
    assert sentences.add(".") == []  # it may go on as in 3.5
    assert [part.sentence for part in sentences.add(" ")] == ["Hello."]
    assert [part.sentence for part in sentences.add("line\n")] == ["line"]


def test_a_text_without_an_end_takes_no_longer_the_longer_it_is() -> None:
    sentences = Sentences()
    for _ in range(50_000):
        assert sentences.add("word") == []
    assert len(sentences.end()[0].sentence) == 200_000
