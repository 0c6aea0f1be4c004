"""Pictures and files: kept once in a conversation, shown to models and tools, erased with the person."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import BaseModel

from moorline import AgentError, File, Image, InvalidMessage, Moorline, Settings, ToolContext, tool
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest, RawReply, Reply, rule_client
from moorline_checkpoint.files import FileContent, FileRef
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.retention import remove_older
from moorline_checkpoint.turn import OpenTurn
from tests.pictures import JPEG, PDF, png
from tests.runtime.conftest import Open

HERE = {"device_id": "d1"}
PHOTO = Image(png(), name="photo.png")


class Nothing(BaseModel):
    """No arguments."""


@tool()
async def measure(arguments: Nothing, context: ToolContext) -> list[list[Any]]:
    """Measures what came."""
    return [[file.name, file.type, file.size, len(await file.read())] for file in context.files]


@pytest.fixture
def moorline(settings: Settings) -> Moorline:
    return opened(settings, Script(rules=looking))


def opened(settings: Settings, script: Script) -> Moorline:
    agent = Agent(name="desk", description="answers", instructions="Answer.", tools=[measure])
    return Moorline(settings, agents=[agent], client=lambda: rule_client(script))


def looking(request: ModelRequest) -> Reply:
    """Calls the tool when told to; else says what it was shown of the person's messages."""
    last = request.messages[-1]
    if last["role"] == "tool":
        return ModelReply(text=str(last["content"]))
    if "measure" in parts_of(last["content"])[0]:
        return ModelReply(calls=(Call(name="measure"),))
    said = [parts_of(message["content"]) for message in request.messages if message["role"] == "user"]
    return ModelReply(text=json.dumps(said))


def parts_of(content: object) -> list[str]:
    """What a content consists of: its text, and the beginnings of its files."""
    if isinstance(content, str):
        return [content]
    assert isinstance(content, list)
    return [
        part.get("text") or str(part.get("image_url", {}).get("url") or part.get("file", {}).get("file_data"))[:22]
        for part in content
    ]


def message(message_id: str, *files: FileRef) -> IncomingMessage:
    return IncomingMessage(
        device_id="phone", message_id=message_id, text="see", resume=None, values={}, on_busy="wait", files=files
    )


async def seen(dsn: str, condition: str) -> None:
    """Waits until the database says so."""
    async with asyncio.timeout(20):
        while not (await rows(dsn, condition))[0][0]:  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.01)


async def rows(dsn: str, query: str) -> Sequence[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_a_model_sees_what_came_and_reads_of_it_later(moorline: Moorline) -> None:
    async with moorline as m:
        seen = json.loads(await m.run(["Look", PHOTO, "here", File(PDF, name="../a/bill.pdf")], HERE))
        assert seen == [["Look\nhere", "data:image/png;base64,", "data:application/pdf;b"]]
        for text in ("two", "three", "four"):
            seen = json.loads(await m.run(text, HERE))
            assert seen[0][1:] == ["data:image/png;base64,", "data:application/pdf;b"]
        seen = json.loads(await m.run("five", HERE))
        assert seen[0] == ["Look\nhere\n[image photo.png]\n[file bill.pdf]"]


async def test_a_text_file_is_shown_as_text_and_files_need_no_text(moorline: Moorline) -> None:
    async with moorline as m:
        assert json.loads(await m.run([File(b"a,b\n1,2", name="t.csv", type="text/csv")], HERE)) == [
            ["[file t.csv]\na,b\n1,2"]
        ]
        assert json.loads(await m.run([PHOTO], HERE))[1] == ["data:image/png;base64,"]


async def test_a_tool_reads_the_files_of_the_message_that_is_being_answered(moorline: Moorline) -> None:
    async with moorline as m:
        assert json.loads(await m.run(["measure", PHOTO], HERE)) == [["photo.png", "image/png", 67, 67]]
        assert json.loads(await m.run("measure", HERE)) == []


async def test_a_file_is_kept_once_in_a_conversation(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        for number in range(3):
            await m.run([str(number), PHOTO, Image(png(), name="again.png")], HERE)
        await m.run(["other", PHOTO], {"device_id": "d2"})
    kept = await rows(dsn, "SELECT device_id, hash, type, size FROM conversation_files ORDER BY device_id")
    assert [tuple(row) for row in kept] == [
        (device, sha256(png()).hexdigest(), "image/png", 67) for device in ("d1", "d2")
    ]
    state = await rows(dsn, "SELECT blob FROM conversation_values UNION ALL SELECT blob FROM conversation_writes")
    assert not any(trace in (row["blob"] or b"") for row in state for trace in (b"IHDR", b64encode(png())))


async def test_the_transcript_lists_files(moorline: Moorline) -> None:
    async with moorline as m:
        await m.run(["Look", PHOTO], HERE)
        await m.run("and on", HERE)
        first, second = await m.transcript("d1")
        assert first.texts == ("Look",)
        assert [(file.name, file.type, file.size) for (file,) in first.files] == [("photo.png", "image/png", 67)]
        assert second.files == ()
        assert [*first.messages()] == ["Look\n[image photo.png]"]
        assert [*second.messages()] == ["and on"]
        assert "[image photo.png]" in (await m.transcript("d1"))._repr_html_()


async def test_a_message_that_comes_again_gets_its_reply_and_nothing_is_kept_anew(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        first = await m.run(["Look", PHOTO], {**HERE, "message_id": "m1"})
        again = await m.run(["Look", Image(png(7))], {**HERE, "message_id": "m1"})
        assert (str(again), again.replayed) == (str(first), True)
    assert [row["count"] for row in await rows(dsn, "SELECT count(*) FROM conversation_files")] == [1]


async def test_a_crashed_turn_is_run_again_with_its_files(settings: Settings, dsn: str) -> None:
    async with opened(settings, Script(RawReply(status=500), RawReply(status=500), RawReply(status=500))) as m:
        with pytest.raises(Exception, match="failing"):
            await m.run(["Look", PHOTO], {**HERE, "message_id": "m1"})
    async with opened(settings, Script(rules=looking)) as m:
        # The server that delivers it again may have lost what it had.
        seen = json.loads(await m.run(["Look", PHOTO], {**HERE, "message_id": "m1"}))
        assert seen == [["Look", "data:image/png;base64,"]]
        assert (await m.transcript("d1"))[0].files != ()


async def test_a_burst_that_is_merged_carries_all_files(settings: Settings, dsn: str) -> None:
    busy = asyncio.Event()
    release = asyncio.Event()

    async def slow(request: ModelRequest) -> Reply:
        if not busy.is_set():
            busy.set()
            await release.wait()
        return looking(request)

    async with opened(settings, Script(rules=slow)) as m:
        first = asyncio.create_task(m.run("first", HERE))
        await busy.wait()
        burst = [
            asyncio.create_task(m.run([str(n), Image(png(n), name=f"{n}.png")], {**HERE, "on_busy": "merge"}))
            for n in range(2)
        ]
        await seen(dsn, "SELECT count(*) = 2 FROM conversation_messages WHERE status = 'waiting'")
        release.set()
        await first
        replies = await asyncio.gather(*burst)
        assert len({reply.turn_no for reply in replies}) == 1
        (entry,) = (await m.transcript("d1"))[1:]
        assert sorted(file.name for (file,) in entry.files) == ["0.png", "1.png"]
        assert sum(part == "data:image/png;base64," for said in json.loads(replies[0]) for part in said) == 2


async def test_bad_files_are_refused_before_anything_is_stored(settings: Settings, dsn: str) -> None:
    bounded = settings.model_copy(update={"file_max": 100, "files_max": 2, "files_total_max": 150})
    async with opened(bounded, Script()) as m:
        wrong: list[Any] = [
            [],
            ["", " "],
            [b"bytes"],
            [File()],
            [File(png(), url="https://example.com/a.png")],
            [File(bytearray(png()))],  # type: ignore[arg-type]
            [File(png(), name=7)],  # type: ignore[arg-type]
            ["see", Image(PDF)],
            ["see", File(JPEG, type="image/png")],
            ["see", Image(b"")],
            ["see", File(b"a" * 101)],
            ["see", PHOTO, PHOTO, PHOTO],
            ["see", File(b"a" * 80), File(b"b" * 80)],
            {"text": "see"},
        ]
        for message in wrong:
            with pytest.raises(InvalidMessage):
                await m.run(message, HERE)
    assert [row["count"] for row in await rows(dsn, "SELECT count(*) FROM conversation_messages")] == [0]
    assert [row["count"] for row in await rows(dsn, "SELECT count(*) FROM conversation_files")] == [0]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a" * 1_000 + ".pdf", "a" * 196 + ".pdf"),
        ("C:\\photos\\..\\an\narm.png", "an arm.png"),
        ("[image] <b>.png", "image b.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\0\ud800.png", "\\x00\N{REPLACEMENT CHARACTER}.png"),
        ("/etc/..", ""),
        ("///", ""),
    ],
)
async def test_a_name_is_one_line_and_no_path(moorline: Moorline, given: str, kept: str) -> None:
    async with moorline as m:
        await m.run(["Look", Image(png(), name=given)], HERE)
        assert (await m.transcript("d1"))[0].files[0][0].name == kept


async def test_a_conversation_keeps_no_more_than_it_may(settings: Settings, dsn: str) -> None:
    bounded = settings.model_copy(update={"files_kept_max": 200})
    async with opened(bounded, Script(rules=looking)) as m:
        for number in range(4):
            await m.run([f"{number}", Image(png(number), name=f"{number}.png")], HERE)
        seen = json.loads(await m.run("and now?", HERE))
    assert seen[1] == ["1\n[image 1.png: no longer kept]"]
    assert seen[2:] == [["2", "data:image/png;base64,"], ["3", "data:image/png;base64,"], ["and now?"]]
    kept = await rows(dsn, "SELECT sum(size) AS bytes FROM conversation_files")
    assert kept[0]["bytes"] <= 200


async def test_files_are_erased_with_the_person_and_linked_devices_share_them(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        await m.run(["Look", PHOTO], HERE)
        await m.link("phone", await m.link_code("d1"))
        await m.run(["mine", Image(JPEG)], {"device_id": "phone"})
        kept = await rows(dsn, "SELECT DISTINCT device_id FROM conversation_files")
        assert [row["device_id"] for row in kept] == ["d1"]
        exported = await m._backend.saver.export("d1")
        assert [file["type"] for file in exported["moorline"]["files"]] == ["image/png", "image/jpeg"]
        (said, _) = exported["moorline"]["messages"]
        assert (said["text"], [file["name"] for file in said["files"]]) == ("Look", ["photo.png"])
        await m.erase("d1", scope="person")
    assert await rows(dsn, "SELECT 1 FROM conversation_files") == []


async def test_the_devices_of_a_person_have_one_file(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        for device in ("phone", "tablet"):
            await m.run(["see", PHOTO], {"device_id": device, "person_id": "p1"})
    assert len(await rows(dsn, "SELECT 1 FROM conversation_files")) == 1


async def test_a_message_that_waits_takes_its_files_along_when_its_device_joins(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        turns, files = m._backend.turns, m._backend.files
        await m.run("hello", {"device_id": "laptop"})
        running = await turns.begin(message("m1"), claim_id=uuid4())
        assert isinstance(running, OpenTurn)
        joining = asyncio.create_task(m.link("phone", await m.link_code("laptop")))
        await seen(dsn, "SELECT count(*) = 1 FROM conversation_messages WHERE joins IS NOT NULL")
        ref = FileRef(hash=sha256(png()).hexdigest(), type="image/png", name="", size=len(png()))
        await files.keep("phone", [FileContent(ref, png())])
        await turns.begin(message("m2", ref), claim_id=uuid4())
        await turns.release(running, notify="m1", failure="Test", give_back=True, forget=True)
        await joining
    kept = await rows(dsn, "SELECT DISTINCT device_id FROM conversation_files ORDER BY 1")
    assert [row["device_id"] for row in kept] == ["laptop", "phone"]
    moved = await rows(dsn, "SELECT address FROM conversation_messages WHERE device_id = 'laptop' AND queued")
    assert [row["address"] for row in moved] == ["phone"]


async def test_what_a_device_that_joins_brings_counts_in_the_bound_by_when_it_came_last(
    settings: Settings, dsn: str
) -> None:
    bounded = settings.model_copy(update={"files_kept_max": 250})
    async with opened(bounded, Script(rules=looking)) as m:
        turns = m._backend.turns

        async def keep(conversation: str, *names: str) -> list[FileRef]:
            """Keeps files of 80 bytes each."""
            contents = [name.encode() * 80 for name in names]
            refs = [FileRef(hash=sha256(each).hexdigest(), type="text/plain", name="", size=80) for each in contents]
            await m._backend.files.keep(conversation, list(map(FileContent, refs, contents)))
            return refs

        await m.run("hello", {"device_id": "laptop"})
        running = await turns.begin(message("m1"), claim_id=uuid4())
        assert isinstance(running, OpenTurn)
        joining = asyncio.create_task(m.link("phone", await m.link_code("laptop")))
        await seen(dsn, "SELECT count(*) = 1 FROM conversation_messages WHERE joins IS NOT NULL")
        await keep("laptop", "a", "b", "c")
        await turns.begin(message("m2", *await keep("phone", "p", "a")), claim_id=uuid4())
        await turns.release(running, notify="m1", failure="Test", give_back=True, forget=True)
        await joining
        await keep("laptop", "n")
    kept = await rows(dsn, "SELECT data FROM conversation_files WHERE device_id = 'laptop' ORDER BY stored_at")
    assert [row["data"][:1] for row in kept] == [b"p", b"a", b"n"]


@pytest.mark.parametrize("shared", [True, False])
async def test_what_an_erased_device_sent_in_vain_goes_with_its_files(
    moorline: Moorline, dsn: str, shared: bool
) -> None:
    photo, other = png(), JPEG
    async with moorline as m:
        turns, files = m._backend.turns, m._backend.files
        await m.run(["Look", Image(photo if shared else other)], HERE)
        await m.link("phone", await m.link_code("d1"))
        assert isinstance(await turns.begin(replace(message("m1"), device_id="d1"), claim_id=uuid4()), OpenTurn)
        ref = FileRef(hash=sha256(photo).hexdigest(), type="image/png", name="", size=len(photo))
        await files.keep("d1", [FileContent(ref, photo)])
        await turns.begin(message("m2", ref), claim_id=uuid4())
        await m.erase("phone", scope="device")
    kept = await rows(dsn, "SELECT type FROM conversation_files WHERE device_id = 'd1'")
    assert [row["type"] for row in kept] == ["image/png" if shared else "image/jpeg"]


async def test_a_cleanup_removes_files_whose_message_never_came(moorline: Moorline, dsn: str) -> None:
    ref = FileRef(hash=sha256(png()).hexdigest(), type="image/png", name="", size=len(png()))
    async with moorline as m:
        await m.run(["Look", PHOTO], HERE)
        for device in ("gone", "young"):
            await m._backend.files.keep(device, [FileContent(ref, png())])
        late = "stored_at = stored_at - interval '2 hours'"
        await rows(dsn, f"UPDATE conversation_files SET {late} WHERE device_id <> 'young'")  # noqa: S608
        await m.clean_up()
    kept = await rows(dsn, "SELECT device_id FROM conversation_files ORDER BY 1")
    assert [row["device_id"] for row in kept] == ["d1", "young"]


async def test_a_copy_of_a_conversation_has_its_files(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        await m.run(["Look", PHOTO], HERE)
        await m._backend.saver.acopy_thread("d1", "d2")
    assert len(await rows(dsn, "SELECT 1 FROM conversation_files WHERE device_id = 'd2'")) == 1


async def test_retention_removes_old_files(moorline: Moorline, dsn: str) -> None:
    async with moorline as m:
        await m.run(["Look", PHOTO], HERE)
        await m.run(["Look", Image(JPEG)], HERE)
        await rows(
            dsn, "UPDATE conversation_files SET stored_at = stored_at - interval '9 days' WHERE type = 'image/png'"
        )
        await remove_older(m._backend.saver.database, days=8)
    assert [row["type"] for row in await rows(dsn, "SELECT type FROM conversation_files")] == ["image/jpeg"]


async def test_what_looks_like_a_reference_is_text(moorline: Moorline) -> None:
    async with moorline as m:
        odd = 'x\x1a[{"hash": "0"}]'
        assert json.loads(await m.run([odd, PHOTO], HERE)) == [[odd, "data:image/png;base64,"]]
        assert json.loads(await m.run(odd, HERE))[1] == [odd]
        assert [entry.texts for entry in await m.transcript("d1")] == [(odd,), (odd,)]


async def test_the_router_is_told_of_files_in_words(open_moorline: Open, model: Script) -> None:
    async with open_moorline() as m:
        with suppress(AgentError):  # its model of rules cannot see
            await m.run(["hair look", PHOTO], HERE)
    assert model.requests[0].messages[-1]["content"] == "hair look\n[image photo.png]"
