"""In an environment in which it cannot work, Moorline says what to change, and not that it may be tried again."""

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorline import DeviceCheckpointer, Moorline, Settings
from moorline.chat import own_device
from moorline.errors import ConfigurationError, StoreUnavailable

from .conftest import agent

NOBODY = 65534


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}/db"


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder that this process may not enter."""
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(mode=0o000)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    yield home
    home.chmod(0o700)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may enter everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


async def opened(dsn: str) -> None:
    async with Moorline(Settings(database_url=dsn), agents=[agent("hair")]):
        pass


async def test_a_user_without_a_name(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"DATABASE_URL names no user.*postgresql://user@host/name"):
            await opened(f"postgresql://{nowhere}")
    with pytest.raises(ConfigurationError, match="names no user"):
        await DeviceCheckpointer.from_conn_string(f"postgresql://{nowhere}").setup()
    with pytest.raises(StoreUnavailable):
        await opened(f"postgresql://someone@{nowhere}")


async def test_a_home_folder_that_may_not_be_entered(nowhere: str, private: Path) -> None:
    with pytest.raises(StoreUnavailable):  # everything that is needed is imported by now
        await opened(f"postgresql://u:p@{nowhere}?sslmode=disable")
    with unprivileged():
        for query in ("", "?sslmode=require"):
            for user in ("u", "u:p"):
                with pytest.raises(ConfigurationError, match=r"HOME.*cannot be used; correct"):
                    await opened(f"postgresql://{user}@{nowhere}{query}")
        with pytest.raises(ConfigurationError, match=r"MOORLINE_DATA"):
            async with Moorline(Settings(), agents=[agent("hair")]):
                pass
        with pytest.raises(ConfigurationError, match=r"MOORLINE_DATA"):
            own_device(Settings().data_folder)


async def test_a_socket_that_may_not_be_used(private: Path) -> None:
    with unprivileged(), pytest.raises(ConfigurationError, match="may not connect"):
        await opened(f"postgresql://u:p@/db?host={private}&sslmode=disable")


async def test_a_certificate_that_is_not_there(nowhere: str) -> None:
    with pytest.raises(ConfigurationError, match="correct the name or the file"):
        await opened(f"postgresql://u:p@{nowhere}?sslmode=verify-full&sslrootcert=/no/such/file")


def test_no_home_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigurationError, match="MOORLINE_DATA"):
        _ = Settings().data_folder
