"""The chat of the command line: in a terminal, or line by line in a pipe."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import uuid4

from rich.console import Console

from moorline.errors import ConfigurationError, MoorlineError
from moorline.events import TextDelta, TextWithdrawn, TurnFailed, TurnFinished
from moorline.reply import Reply
from moorline.runtime import Moorline
from moorline_migrations.plain import lines, one_line


def in_terminal() -> bool:
    """Whether a person is typing and reading."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def converse(app: Moorline, *, device: str | None = None) -> None:
    """Chats until standard input ends. `device` is by default the one kept in the data folder."""
    device = device or own_device(app.settings.data_folder)
    unanswered: dict[str, str] = {}
    """Message IDs of texts that failed: a text that is typed again is the same message, so nothing is done twice."""

    def context(text: str) -> dict[str, str]:
        return {"device_id": device, "message_id": unanswered.setdefault(text, str(uuid4()))}

    async def show(text: str) -> None:
        await _stream(moorline, text, context(text))
        del unanswered[text]

    async def answer(text: str) -> Reply:
        reply = await moorline.run(text, context(text))
        del unanswered[text]
        return reply

    # The event loop is paused between messages, so that line editing and Ctrl-C work in the terminal.
    with asyncio.Runner() as runner:
        moorline = runner.run(app.__aenter__())
        try:
            if in_terminal():
                _type(lambda text: runner.run(show(text)))
            else:
                _pipe(lambda text: runner.run(answer(text)))
        finally:
            runner.run(moorline.close())


def own_device(folder: Path) -> str:
    """The device ID of the chat in this data folder, made by the first call in a file that only its owner can read."""
    file = folder / "device"
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make_device(file)
        return file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"The chat cannot keep its device ID in {file} ({error.strerror}). Make the folder writable, or choose "
            "another with MOORLINE_DATA, or name a device with --device."
        ) from error


def _make_device(file: Path) -> None:
    """The file never exists without an ID in it, and the first of several processes wins."""
    with NamedTemporaryFile("w", dir=file.parent) as draft:  # mode 0600
        draft.write(f"{uuid4()}\n")
        draft.flush()
        with suppress(FileExistsError):
            os.link(draft.name, file)


def _pipe(answer: Callable[[str], Reply]) -> None:
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    for line in sys.stdin:
        if not line.strip():
            continue
        reply = answer(line.strip())
        for each in (*reply.recovered, reply):
            sys.stdout.write(f"{_speaker(each)} {one_line(each.rstrip())}\n")
        if reply.notice is not None:
            sys.stdout.write(f"* {one_line(reply.notice)}\n")
        sys.stdout.flush()


def _type(answer: Callable[[str], None]) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 (gives input its history and its keys)
    _aside("Ctrl-D ends the chat; the conversation goes on next time.")
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return
        if not text.strip():
            continue
        try:
            answer(text.strip())
        except KeyboardInterrupt:
            _aside("\nInterrupted.")
        except MoorlineError as error:
            _aside(f"\n{lines(str(error))}", style="red")


async def _stream(moorline: Moorline, text: str, context: dict[str, str]) -> None:
    """Shows the reply as it is written. Raises the error of a failed turn; what was shown is then void.

    Nothing can be taken back in a terminal: withdrawn text is marked, and the reply continues on a new line."""
    async for event in moorline.stream(text, context):
        match event:
            case TextDelta():
                sys.stdout.write(lines(event.text))
                sys.stdout.flush()
            case TextWithdrawn():
                _aside(" [withdrawn]")
            case TurnFinished(reply=reply):
                for earlier in reply.recovered:
                    _aside(f"\n{_speaker(earlier)}, to an earlier message: {lines(earlier)}")
                _aside(f"\n{_speaker(reply)}")
                if reply.notice is not None:
                    _aside(lines(reply.notice))
            case TurnFailed(error=error):
                raise error


def _speaker(reply: Reply) -> str:
    return f"[{one_line(reply.agent or 'manager')}]"


def _aside(text: str, *, style: str = "dim") -> None:
    Console(highlight=False).print(text, style=style, markup=False)
