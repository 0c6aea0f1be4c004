"""The command line as its users see it: processes, exit statuses, standard output and standard error."""

import asyncio
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg
import pytest

from moorline.chat import own_device
from moorline.cli import main
from moorline.errors import ConfigurationError
from moorline_agents import transport
from moorline_agents.transport import ModelReply, ModelRequest, RawReply, Rules, respond
from tests.spaces import a_space

PROGRAM = str(Path(sys.executable).with_name("moorline"))


@dataclass(frozen=True, kw_only=True)
class Done:
    """The result of a call of the command line."""

    status: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment without Moorline's settings."""
    for name in os.environ:
        if re.match("MOORLINE_|OPENAI_|DATABASE_URL|DEFAULT_SESSION_TTL|AWS_LAMBDA|VERCEL", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MOORLINE_TUNE_GC", "false")  # this process is the tests'


@pytest.fixture
def moorline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in this process, which saves the seconds that importing it takes."""

    def call(*arguments: str, said: str = "", **settings: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [PROGRAM, *arguments])
            patch.setattr(sys, "stdin", io.StringIO(said))
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capsys.readouterr()
        match ended.value.code:
            case str(message):  # the interpreter prints it and ends with status 1
                return Done(status=1, out=out, err=f"{err}{message}\n")
            case code:
                return Done(status=int(code or 0), out=out, err=err)

    return call


def in_a_process(*arguments: str, said: str = "", **settings: str) -> Done:
    """The same in a process of its own."""
    ended = subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | settings,
        input=said,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Done(status=ended.returncode, out=ended.stdout, err=ended.stderr)


def refusal(done: Done) -> str:
    """The line with which a call was refused; there must be only one."""
    assert (done.status, done.out) == (1, "")
    assert "Traceback" not in done.err
    line = done.err.splitlines()[-1]
    assert line.startswith("moorline: ")
    return line


def execute(dsn: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def two_lines(request: ModelRequest) -> ModelReply:
    """A model that routes to the concierge, which says two lines, the second with terminal control characters."""
    if "route" in request.functions:
        return ModelReply(calls=(transport.Call(name="route", arguments={"agent": "concierge"}),))
    return ModelReply(text="Guten Tag,\nschöne \x1b[31mGrüße\n")


@contextmanager
def model_server(rules: Rules = two_lines) -> Iterator[dict[str, str]]:
    """The settings of a model server that answers by the rules."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = asyncio.run(respond(rules, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(raw.status)
            for name, value in raw.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"".join(raw.pieces))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield {"OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1"}
        finally:
            server.shutdown()


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder for an embedded server."""
    with a_space() as folder:
        yield folder


def test_a_conversation_goes_on_in_the_next_process_on_a_database_of_its_own(data: Path) -> None:
    first = in_a_process("chat", said="I want to book a haircut\n", MOORLINE_DATA=str(data))
    assert re.fullmatch(r"\[scheduling\] .*Haircut.*\n", first.out), first.err
    assert first.err.count("rehearsal model") == 1
    assert re.search(r"INFO moorline\.session: Session lock set: \w+ -> scheduling\n", first.err)
    assert (data / "device").read_text().strip() not in first.err

    second = in_a_process("chat", said="the first one\n\n  \n", MOORLINE_DATA=str(data))
    assert re.fullmatch(r"\[scheduling\] Shall I book Haircut .*\? \(yes / no\)\n", second.out), second.err
    third = in_a_process("chat", said="yes\n", MOORLINE_DATA=str(data))
    assert re.fullmatch(r"\[scheduling\] Booked: Haircut.* The reference is \w{8}\..*\n", third.out), third.err


def test_a_reply_is_one_line_in_utf8_whatever_the_locale(tmp_path: Path, dsn: str) -> None:
    settings = {"DATABASE_URL": dsn, "MOORLINE_DATA": str(tmp_path), "LC_ALL": "C", "PYTHONUTF8": "0"}
    with model_server() as model:
        done = in_a_process("chat", said="Grüß Gott\n", **settings, **model)
    assert done.out == "[concierge] Guten Tag, schöne \\x1b[31mGrüße\n"
    assert "rehearsal" not in done.err


def test_in_a_terminal_there_is_a_prompt_and_a_reply_cannot_steer_it(tmp_path: Path, dsn: str) -> None:
    settings = {"DATABASE_URL": dsn, "MOORLINE_DATA": str(tmp_path), "TERM": "xterm", "PYTHONUTF8": "1"}
    with model_server() as model, in_a_terminal("chat", **settings, **model) as (chat, terminal):
        read_until(terminal, r"> $")
        os.write(terminal, b"hello\n")
        shown = read_until(terminal, r"\[concierge\].*> $")
        os.write(terminal, b"\x04")
        assert chat.wait() == 0
    assert r"schöne \x1b[31mGrüße" in shown
    assert "Session lock" not in shown


def test_a_text_that_failed_and_is_typed_again_is_the_same_message(tmp_path: Path, dsn: str) -> None:
    """So its tools do nothing twice."""
    asked: list[ModelRequest] = []

    def fails_once(request: ModelRequest) -> ModelReply | RawReply:
        asked.append(request)
        return RawReply(status=400) if len(asked) == 1 else two_lines(request)

    settings = {"DATABASE_URL": dsn, "MOORLINE_DATA": str(tmp_path), "TERM": "xterm", "PYTHONUTF8": "1"}
    with model_server(fails_once) as model, in_a_terminal("chat", **settings, **model) as (_, terminal):
        read_until(terminal, r"> $")
        os.write(terminal, b"hello\n")
        read_until(terminal, r"refused the request.*> $")
        for _ in range(2):
            os.write(terminal, b"hello\n")
            read_until(terminal, r"\[concierge\].*> $")
    counts = asyncio.run(fetch(dsn, "SELECT count(*), max(turn_no) FROM conversation_messages"))
    assert counts == (2, 2), "the second was the first again, the third another one"


async def fetch(dsn: str, query: str) -> tuple[object, ...]:
    connection = await asyncpg.connect(dsn)
    try:
        return tuple(await connection.fetchrow(query) or ())
    finally:
        await connection.close()


@contextmanager
def in_a_terminal(*arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in a terminal of its own, and the other end of that terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        env=os.environ | settings,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, pattern: str) -> str:
    """What the terminal shows from now on, until it matches the pattern."""
    shown = b""
    while not re.search(pattern.encode(), shown, re.DOTALL):
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 4096)
    return shown.decode()


def test_the_chosen_device_is_the_one_that_talks(moorline: Call, dsn: str) -> None:
    moorline("chat", "--device", "kiosk", said="I want to book a haircut\n", DATABASE_URL=dsn)
    assert moorline("sessions", DATABASE_URL=dsn).out.startswith("kiosk\tscheduling\t")


def test_a_message_that_is_refused_ends_the_pipe(moorline: Call, dsn: str) -> None:
    done = moorline("chat", "--device", "kiosk", said="x" * 1_000_000 + "\nhello\n", DATABASE_URL=dsn)
    assert "characters" in refusal(done)


def test_a_database_of_ones_own_is_never_migrated_by_the_chat(moorline: Call, empty_dsn: str) -> None:
    done = moorline("chat", "--device", "kiosk", said="hello\n", DATABASE_URL=empty_dsn)
    assert "`moorline migrate`" in refusal(done)
    assert "is at version 0" in moorline("migrate", "--status", DATABASE_URL=empty_dsn).out


def test_migrate_says_what_it_does_and_does_it_once(moorline: Call, empty_dsn: str) -> None:
    stand = moorline("migrate", "--status", DATABASE_URL=empty_dsn).out.splitlines()
    assert [line.split(", ")[0] for line in stand if line.startswith("Schema")] == [
        "Schema public: moorline is at version 0",
        "Schema public: scheduling is at version 0",
    ]
    pending = [line.removeprefix("To apply: ") for line in stand if line.startswith("To apply")]
    applied = moorline("migrate", DATABASE_URL=empty_dsn).out.splitlines()
    assert applied == [f"Applied {version}." for version in pending]
    assert moorline("migrate", DATABASE_URL=empty_dsn).out == "Nothing to apply.\n"
    assert moorline("migrate", "--sql", DATABASE_URL=empty_dsn).out == ""


def test_the_sql_that_migrate_prints_is_what_it_runs(moorline: Call, empty_dsn: str) -> None:
    execute(empty_dsn, moorline("migrate", "--sql", DATABASE_URL=empty_dsn).out)
    assert moorline("migrate", DATABASE_URL=empty_dsn).out == "Nothing to apply.\n"


def test_sessions_are_listed_and_expired_ones_cleaned_up(moorline: Call, dsn: str) -> None:
    execute(
        dsn,
        "INSERT INTO conversation_states (device_id, active_agent, locked_at, last_active_at, session_ttl) VALUES"
        " ('here', 'scheduling', now(), now(), 60), ('gone', 'scheduling', now() - interval '1 hour', NULL, 60)",
    )
    listed = moorline("sessions", DATABASE_URL=dsn).out
    assert re.fullmatch(r"here\tscheduling\t\S+T\S+\+00:00\t\S+T\S+\+00:00\n", listed)
    assert moorline("cleanup", DATABASE_URL=dsn).out == "Cleaned up 1 expired sessions.\n"
    assert moorline("cleanup", DATABASE_URL=dsn).out == "Cleaned up 0 expired sessions.\n"
    assert moorline("sessions", DATABASE_URL=dsn).out == listed


def test_a_cleanup_leaves_the_work_to_a_process_that_is_at_it(moorline: Call, dsn: str) -> None:
    execute(dsn, "UPDATE moorline_cleanups SET claim_id = gen_random_uuid(), lease_until = now() + interval '1 minute'")
    assert moorline("cleanup", DATABASE_URL=dsn).out == "Another process is cleaning up; nothing was done.\n"


def test_figures_are_shown_as_tables_or_as_json(moorline: Call, dsn: str) -> None:
    moorline("chat", "--device", "d1", said="I want an appointment\nHello\n", DATABASE_URL=dsn)
    text = moorline("stats", DATABASE_URL=dsn).out
    assert re.search(r"^all agents +1 +0 ", text, re.MULTILINE)
    assert re.search(r"^\d{4}-\d\d-\d\d +all agents +2 +1$", text, re.MULTILINE)
    told = json.loads(moorline("stats", "--since", "1d", "--json", DATABASE_URL=dsn).out)
    assert told["sessions"]["started"] == 1
    assert sum(day["turns"] for day in told["days"]) == 2
    assert told["now"]["waiting"] == 0
    assert "such as 7d" in refusal(moorline("stats", "--since", "soon", DATABASE_URL=dsn))


def test_the_tag_of_a_device_finds_its_lines_in_the_log(moorline: Call, dsn: str) -> None:
    chatted = moorline("chat", "--device", "d1", said="I want an appointment\n", DATABASE_URL=dsn)
    [tag] = moorline("tag", "d1", DATABASE_URL=dsn).out.split()
    assert f"Session lock set: {tag} -> scheduling" in chatted.err
    assert moorline("tag", "d2", DATABASE_URL=dsn).out.strip() != tag
    assert moorline("tag", "d1", DATABASE_URL=dsn, MOORLINE_LOG_KEY="a key of sixteen").out.strip() != tag


def test_what_is_wrong_is_one_line_that_says_what_to_do(moorline: Call, tmp_path: Path, dsn: str) -> None:
    assert "MOORLINE_POOL_MAX" in refusal(moorline("sessions", MOORLINE_POOL_MAX="none"))
    unreachable = refusal(moorline("sessions", DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none"))
    assert "does not answer" in unreachable
    assert "secret" not in unreachable
    assert "device ID" in refusal(moorline("chat", "--device", "a b", said="hi\n", DATABASE_URL=dsn))
    (tmp_path / "file").touch()
    assert "MOORLINE_DATA" in refusal(moorline("chat", DATABASE_URL=dsn, MOORLINE_DATA=str(tmp_path / "file")))


@pytest.mark.parametrize("arguments", [("talk",), ("migrate", "--status", "--sql"), ("replay", "no-such-file")])
def test_a_call_that_cannot_be_understood_has_status_2(moorline: Call, arguments: tuple[str, ...]) -> None:
    done = moorline(*arguments)
    assert (done.status, done.out) == (2, "")


def test_the_device_id_of_a_folder_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        devices = set(threads.map(lambda _: own_device(tmp_path / "data"), range(40)))
    assert len(devices) == 1
    assert (tmp_path / "data" / "device").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["device"]


def test_a_folder_that_cannot_hold_a_device_id_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/data/device.*--device"):
        own_device(tmp_path / "file" / "data")
