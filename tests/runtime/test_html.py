"""What a notebook shows of a reply, a session, a transcript and the manager graph, whatever people and models say."""

from base64 import b64decode
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from moorline import Agent, Interrupt, Reply, Session, Settings
from moorline.runtime import Moorline
from moorline_agents.messages import Usage
from moorline_checkpoint.transcripts import Transcript, TranscriptEntry
from moorline_checkpoint.turn import TurnRecord
from tests.runtime.conftest import Open

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table><h1>mine</h1>",
    "&lt;b&gt; & &#60;i&#62;",
    "<!-- <![CDATA[ ]]> -->",
    "\x1b[31m\x00\r\u202e\ud800 \u2028",
)
TAGS = {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "br", "img"}


class Page(HTMLParser):
    """The tags, attributes and text of a piece of HTML, as a browser reads it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= attrs
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(shown: Reply | Session | Transcript) -> Page:
    read = Page(shown._repr_html_())
    assert set(read.tags) <= TAGS
    assert set(read.attributes) <= {"style", "class"}
    assert not read.open
    assert "mathjax_ignore" in str(read.attributes["class"])
    return read


def entry(number: int, text: str = "hello") -> TranscriptEntry:
    record = TurnRecord(turn_no=number, agent=text, reply=text, handoffs=(), usage={}, interrupt=None)
    return TranscriptEntry(
        texts=(text, text), message_ids=(text, text), record=record, started_at=NOW, committed_at=NOW
    )


def shown(text: str) -> str:
    """What is to be read of a hostile text: all of it, without what is not printable."""
    return "".join(each for each in text if each.isprintable() and each not in "\n")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_is_said_is_shown_as_text_and_is_nothing_else(text: str) -> None:
    reply = Reply(text, message_id=text, agent=text, handoffs=(text,), interrupt=Interrupt(id=text, value=text))
    session = Session(text, text, NOW, NOW)
    for read in (page(reply), page(session), page(Transcript([entry(1, text)]))):
        for piece in shown(text).split("\u2028"):
            assert piece.strip()[:8] in read.text
        assert not {*read.text} & set("\x1b\x00\r\u202e\ud800")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_picture_of_the_graph_is_sound_whatever_an_agent_is_called(text: str) -> None:
    agents = [Agent(name=name, description=text, instructions="") for name in ("hair", "nails")]
    graph = Moorline(Settings(database_url="postgresql://nobody@localhost/none"), agents=agents).graph
    drawing = ElementTree.fromstring(graph.svg())  # noqa: S314 - we have made it
    assert {each.tag.partition("}")[2] for each in drawing.iter()} <= {
        *("svg", "style", "defs", "marker", "path", "rect", "text", "g", "title")
    }
    read = Page(graph._repr_html_())
    assert read.tags == ["div", "img"]
    source = str(read.attributes["src"]).removeprefix("data:image/svg+xml;base64,")
    assert b64decode(source).decode() == graph.svg()
    assert read.attributes["alt"] == str(graph)


async def test_the_picture_shows_the_ways_that_the_graph_has(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        compiled = moorline._queue.execution.graph.get_graph()
        names = [agent.name for agent in moorline.graph.agents]
        assert names == ["hair", "nails", "desk"]
        ways = {(edge.source, edge.target.partition(".")[0]) for edge in compiled.edges}
        assert {target for source, target in ways if source == "route"} == {*names, "__end__"}
        assert all(name in moorline.graph.svg() for name in names)
        assert str(moorline.graph).startswith("START → route → one of hair, nails, desk → END.")


def test_a_reply_tells_what_is_not_as_usual() -> None:
    plain = page(Reply("hello", message_id="m1", agent="hair", turn_no=3)).text
    assert plain == "helloagenthairturn3messagem1"
    earlier = Reply("earlier")
    told = page(
        Reply(
            "one\ntwo", replayed=True, degraded=True, recovered=(earlier,), usage=Usage(1200, 30), handoffs=("a", "b")
        )
    ).text
    for piece in ("manager", "replayed", "degraded", "recoveredearlier", "1,200 + 30", "a, then b"):
        assert piece in told


async def test_the_runtime_gives_them(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        for number in range(3):
            await moorline.run(f"hair {number} <b>", {"device_id": "d1"})
        transcript = await moorline.transcript("d1")
        session = await moorline.session("d1")
    assert "hair 2 <b>" in page(transcript).text
    assert session is not None
    assert page(session).text.startswith("deviced1agenthairsince2")


def test_of_a_long_transcript_the_end_is_shown() -> None:
    read = page(Transcript(entry(number) for number in range(1, 301)))
    assert read.tags.count("tr") == 51
    assert read.text.endswith("The last 50 of 300 turns.")
