"""`moorline load` as its users see it, and the scenarios that it plays."""

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from moorline import Settings, commands
from moorline.cli import main
from moorline.errors import ConfigurationError, MoorlineError
from moorline.load import Plan, Report, echo_moorline, in_process, run_load
from moorline.load import over_http as serving_target
from moorline.load.cli import summary
from moorline.load.judging import Verdict
from moorline.load.over_http import over_http
from moorline.load.processes import in_processes
from moorline.runtime import Moorline
from tests.http.serving import serving

PROGRAM = str(Path(sys.executable).with_name("moorline"))
ECHO = "moorline.load.app:moorline"
PLAN = Plan(devices=8, turns=3)


@pytest.fixture
async def moorline(dsn: str) -> AsyncIterator[Moorline]:
    async with echo_moorline(Settings(database_url=dsn)) as opened:
        yield opened


def environment(dsn: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not re.match("MOORLINE_|OPENAI_|DATABASE_URL", name)}
    return kept | {"DATABASE_URL": dsn}


@dataclass(frozen=True, kw_only=True)
class Done:
    """The result of a call of the command line."""

    status: int
    out: str
    err: str


Load = Callable[..., Done]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dsn: str) -> Load:
    """Runs `moorline load` in this process, which saves the seconds that importing it takes."""
    monkeypatch.setenv("MOORLINE_TUNE_GC", "false")  # this process is the tests'
    monkeypatch.setenv("DATABASE_URL", dsn)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", [PROGRAM, "load", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        if isinstance(ended.value.code, str):  # the interpreter prints it and ends with status 1
            return Done(status=1, out=out, err=f"{err}{ended.value.code}\n")
        return Done(status=ended.value.code or 0, out=out, err=err)

    return call


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, same_device=True),
        replace(PLAN, burst=True),
        replace(PLAN, duplicates=True),
        replace(PLAN, same_device=True, burst=True, duplicates=True),
    ],
    ids=["devices", "same device", "burst", "duplicates", "all"],
)
async def test_every_message_has_one_turn_whoever_sends_it_when_and_how_often(plan: Plan, moorline: Moorline) -> None:
    report = await run_load(plan, in_process(moorline))
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert (report.answered, report.turns, report.good) == (24, 24, True)
    assert not (await moorline.stats()).sessions


async def test_messages_that_are_merged_are_fewer_turns_and_none_is_lost(dsn: str) -> None:
    settings = Settings(database_url=dsn, on_busy="merge")
    async with echo_moorline(settings, latency=0.05) as moorline:
        report = await run_load(replace(PLAN, burst=True, turns=6), in_process(moorline))
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert report.answered == 48
    assert report.turns < 48


async def test_a_full_queue_is_asked_again_until_it_has_room(dsn: str) -> None:
    async with echo_moorline(Settings(database_url=dsn, queue_max=2, device_keys=frozenset({"wa_id"}))) as moorline:
        report = await run_load(replace(PLAN, same_device=True), in_process(moorline))
    assert report.good
    assert report.again["SessionBusy"] > 0


async def test_it_stops_when_its_time_is_over_and_says_so(dsn: str) -> None:
    async with echo_moorline(Settings(database_url=dsn), latency=0.4) as moorline:
        began = time.perf_counter()
        report = await run_load(Plan(devices=2, turns=100, within=1.5), in_process(moorline))
    assert time.perf_counter() - began < 15
    assert 0 < report.answered < 20
    assert report.verdict.clean
    assert not report.good
    assert "It was stopped early" in "\n".join(summary(report, bar="#"))


async def test_conversations_run_through_all_processes(moorline: Moorline) -> None:
    async with in_processes(moorline, 2, app=None, latency=0.0) as target:
        report = await run_load(replace(PLAN, duplicates=True), target)
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert report.good


async def test_the_list_of_processes_shows_no_password(moorline: Moorline) -> None:
    async with in_processes(moorline, 1, app=None, latency=0.0) as target:
        listed = await asyncio.create_subprocess_exec(
            *("ps", "-o", "args=", "-p", str(target._workers[0].process.pid)), stdout=asyncio.subprocess.PIPE
        )
        command = (await listed.communicate())[0].decode()
    assert "moorline.load.worker" in command
    assert "postgresql" not in command


async def test_a_reply_to_somebody_who_has_just_gone_is_dropped(moorline: Moorline) -> None:
    async with in_processes(moorline, 1, app=None, latency=0.1) as target:
        [worker] = target._workers
        asked = asyncio.create_task(target.send(str(uuid4()), "hello", "m1"))
        await asyncio.sleep(0)
        [number] = worker._asked
        asked.cancel()  # it has not run since, so the number is still there
        worker._settle(number, {"text": "late", "turn_no": 1})
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await target.send(str(uuid4()), "hello", "m2")).turn_no == 1


async def test_a_load_test_judges_by_what_the_primary_has(dsn: str) -> None:
    assert echo_moorline(Settings(database_url=dsn, replica_url="postgresql://r/db")).settings.replica_url is None


@asynccontextmanager
async def answering(*answers: str) -> AsyncIterator[str]:
    """The address of a server that gives these answers, each to one connection, and the last to all that follow."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said = left.pop(0) if len(left) > 1 else left[0]
        status, _, body = said.partition(" ")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


SESSION = '200 {"agent": null}'


async def test_a_page_is_no_server() -> None:
    async with answering("200 <html>Welcome</html>") as url:
        with pytest.raises(ConfigurationError, match="is no server of Moorline's"):
            async with over_http(url):
                pass


@pytest.mark.parametrize("said", ["200 <html>", "200 [1]", "502 <html>", "500 [1]", "404 null"])
async def test_what_a_proxy_says_is_an_error_of_its_message(said: str) -> None:
    async with answering(SESSION, said) as url, over_http(url) as target:
        with pytest.raises(MoorlineError) as refused:
            await target.send("d1", "hello", "m1")
    assert not refused.value.retryable


async def test_a_server_that_is_never_ready_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_target, "TIMEOUT", 1.5)
    async with answering(SESSION, '503 {"retryable": true}') as url, over_http(url) as target:
        began = time.monotonic()
        with pytest.raises(MoorlineError, match="503") as refused:
            await target.erase("d1")
    assert refused.value.retryable
    assert 0.9 < time.monotonic() - began < 5  # it was given a second in between


@pytest.mark.laboratory  # what it was doing goes on when its leases have ended, in 15 s
async def test_conversations_outlive_a_process_that_is_killed(moorline: Moorline) -> None:
    plan = Plan(devices=6, turns=4, duplicates=True)
    async with in_processes(moorline, 2, app=None, latency=0.2) as target:
        killed = target._workers[0].process
        asyncio.get_running_loop().call_later(0.7, killed.kill)
        report = await run_load(plan, target)
    assert killed.returncode == -signal.SIGKILL
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert report.good


@pytest.mark.parametrize("auth", ["none", "signed"])
async def test_a_server_is_put_under_load_over_http(dsn: str, auth: str) -> None:
    def serve_and_load() -> Report:
        async def run(url: str) -> Report:
            async with over_http(url) as target:
                return await run_load(replace(PLAN, duplicates=True), target)

        fast = dict.fromkeys(
            ("MOORLINE_RATE_DEVICE", "MOORLINE_RATE_ADDRESS", "MOORLINE_RATE_NEW_DEVICES"), "999/second"
        )
        with serving(dsn, app=ECHO, MOORLINE_DEVICE_AUTH=auth, **fast) as served:
            return asyncio.run(run(served.url))

    report = await asyncio.to_thread(serve_and_load)
    assert report.counts == {"lost": 0, "mixed": 0, "duplicated": 0}
    assert report.good


async def test_what_is_no_server_is_said_before_anything_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="No server answers at"):
        async with over_http("http://127.0.0.1:9"):
            pass
    with pytest.raises(ConfigurationError, match="http://"):
        async with over_http("localhost"):
            pass


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"turns": 0}, {"devices": 10**6, "turns": 2}, {"within": 0}])
def test_what_is_no_plan_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Plan(**wrong)


def test_the_command_shows_figures_and_a_plot_and_ends_with_status_0(load: Load) -> None:
    done = load("--devices", "5", "--turns", "2", "--latency", "0.05")
    assert done.status == 0, done.err
    for line in (
        r"messages answered  10 of 10",
        r"turns/s  \d+",
        r"p99  \d+ ms",
        r"lost  0",
        r"mixed  0",
        r"duplicated  0",
    ):
        assert re.search(line, done.out), done.out
    assert re.search(r"\d+ ms to +\d+ ms  █+ \d", done.out)
    assert done.err == ""


def test_a_terminal_shows_how_far_it_is(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert re.search(r"messages .*6/6", load("--devices", "3", "--turns", "2").err)


APP = """
from moorline import Agent, Moorline
from moorline_agents.transport import ModelReply, rule_client

clerk = Agent(name="clerk", description="everything", instructions="You are the clerk.")
moorline = Moorline(agents=[clerk], client=lambda: rule_client(lambda request: ModelReply(text="Good morning.")))
"""


def test_an_app_of_ones_own_is_put_under_load_with_its_own_agents(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "office_under_load.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    done = load("--devices", "3", "--turns", "2", "--app", "office_under_load:moorline")
    assert (done.status, done.err) == (0, "")
    assert "6 of 6" in done.out


def test_a_database_that_is_not_migrated_is_told_in_a_line(
    load: Load, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_dsn)
    done = load("--devices", "2")
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(r"moorline: .*moorline migrate.*\n", done.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--http", "http://127.0.0.1:9", "--processes", "2"),
        ("--http", "http://127.0.0.1:9", "--app", ECHO),
        ("--app", ECHO, "--latency", "1"),
        ("--devices", "0"),
        ("--latency", "-1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], load: Load) -> None:
    done = load(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Invalid value" in done.err


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_it_with_what_there_is_and_leaves_nothing(dsn: str, processes: str) -> None:
    process = subprocess.Popen(
        [PROGRAM, "load", "--devices", "4", "--turns", "1000", "--latency", "0.1", "--processes", processes],
        env=environment(dsn) | {"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    asyncio.run(_until_some_turns(dsn))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert re.search(r"messages answered  [1-9]\d* of 4,000", out)
    assert re.search(r"lost  0\n +mixed  0\n +duplicated  0\n", out)
    assert "It was stopped early" in out
    assert re.search(r"ms to .*  #+ \d", out)
    assert asyncio.run(_turns(dsn)) == 0


async def _until_some_turns(dsn: str) -> None:
    async with asyncio.timeout(60):
        while await _turns(dsn) < 8:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)


async def _turns(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM conversation_turns"))
    finally:
        await connection.close()


def test_the_page_has_every_option_of_the_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "load.md").read_text(encoding="utf-8")
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(commands.load).parameters}
    assert set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)) == options


def test_faults_are_counted_and_the_first_of_each_kind_told() -> None:
    lost = {f"00000000.0.{number}": "answered, but no turn of it is stored" for number in range(5)}
    report = Report(plan=PLAN, seconds=2.0, turns=4, latencies=[0.1, 0.2, 0.3, 1.0], verdict=Verdict(lost=lost))
    told = summary(report, bar="#")
    assert any(re.fullmatch(r" +lost  5", line) for line in told)
    assert [line for line in told if line.startswith("lost:")] == [
        *(f"lost: message {mark}: answered, but no turn of it is stored" for mark in list(lost)[:3]),
        "lost: and 2 more",
    ]
    assert report.percentile(50) == 0.25
    assert sum(number for *_, number in report.histogram()) == 4
