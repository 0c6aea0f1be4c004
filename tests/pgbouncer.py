"""PgBouncer in transaction mode in front of a test's database."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

import pytest

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@contextmanager
def pooled(dsn: str, *, connections: int = 2) -> Iterator[str]:
    """The same database through a PgBouncer that has so many connections to the server."""
    assert PGBOUNCER is not None
    data = Path(parse_qs(urlsplit(dsn).query)["host"][0])
    database = urlsplit(dsn).path.removeprefix("/")
    folder = Path(mkdtemp(prefix="pooler-", dir=data.parent))  # where the user that the server runs as may go
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{database} = host={data} port=5432 user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = 5432\nunix_socket_dir = {folder}\n"
        f"auth_type = any\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
        f"default_pool_size = {connections}\nmax_client_conn = 200\nserver_login_retry = 1\n"
    )
    command = [PGBOUNCER, "--quiet", str(folder / "pgbouncer.ini")]
    if os.getuid() == 0:  # as which it refuses to run
        command[1:1] = ["--user", data.owner()]
        shutil.chown(folder, data.owner())
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        asyncio.run(_listening(folder / ".s.PGSQL.5432", process))
        yield f"postgresql://postgres@/{database}?host={folder}"
    finally:
        process.terminate()
        process.wait()


async def _listening(path: Path, process: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(10):
        while True:
            assert process.poll() is None
            try:
                _, writer = await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
