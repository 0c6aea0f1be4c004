"""Servers as their users start them: `moorline serve` in a process of its own, on a free port of this machine."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

PROGRAM = str(Path(sys.executable).with_name("moorline"))
APP = "tests.http.app:moorline"
ROOT = Path(__file__).parents[2]


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)

    def client(self, device: str | None = "d1", *, token: str | None = None) -> httpx2.Client:
        headers = {} if device is None else {"X-Device-ID": device}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    @property
    def said(self) -> str:
        return "".join(self.log)


@contextmanager
def serving(
    dsn: str, *arguments: str, app: str | None = APP, folder: str = str(ROOT), **settings: str
) -> Iterator[Served]:
    """A server on this database. Its address is known when the block begins, and its workers may still be starting."""
    kept = {name: value for name, value in os.environ.items() if not re.match("MOORLINE_|OPENAI_|DATABASE_URL", name)}
    named = [] if app is None else ["--app", app]
    process = subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", *named, *arguments],
        env=kept | {"DATABASE_URL": dsn} | settings,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test can press Ctrl-C
    )
    served = Served(process)
    known = threading.Event()

    def read() -> None:
        for line in process.stderr or ():
            served.log.append(line)
            if found := re.search(r"Serving (http://\S+) in", line):
                served.url = found[1]
                known.set()
        known.set()

    reading = threading.Thread(target=read)
    reading.start()
    try:
        assert known.wait(60)
        assert served.url, served.said
        yield served
    finally:
        if process.poll() is None:
            served.stop()  # its workers would outlive it if it were killed
        reading.join()
        assert process.stderr is not None
        process.stderr.close()
