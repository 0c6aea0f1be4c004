"""`moorline serve` as it is started: where, in how many processes, for whom, and what it refuses."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from moorline.errors import ConfigurationError
from moorline.http import HttpSettings
from moorline.http.limits import address_of

from .asking import asking, bearer, moorline_on
from .serving import APP, PROGRAM, ROOT, Served, serving

EVERYWHERE = "0.0.0.0"  # noqa: S104


@pytest.fixture(scope="module")
def served(module_dsn: str) -> Iterator[Served]:
    with serving(module_dsn, "--workers", "2", app=APP, MOORLINE_DEVICE_AUTH="signed") as server:
        yield server


def refused(*arguments: str, **settings: str) -> str:
    done = subprocess.run(
        [PROGRAM, "serve", "--app", APP, *arguments],
        env=os.environ | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def children(of: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


def test_workers_share_devices_tokens_and_turns(served: Served) -> None:
    def ask(token: str) -> int:
        with served.client(None, token=token) as client:
            return int(client.post("/v1/messages", json={"text": "hello"}).json()["turn_no"])

    with served.client(None) as client:
        token = client.post("/v1/devices").json()["token"]
    assert [ask(token) for _ in range(10)] == list(range(1, 11))


def workers_of(server: Served) -> list[int]:
    return [pid for pid in children(server.process.pid) if "spawn_main" in _command(pid)]


def await_replacement(server: Served, died: int, *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while died in (now := workers_of(server)) or len(now) < 2:
        assert time.monotonic() < until, "it was not replaced"
        time.sleep(0.2)


def test_a_worker_that_dies_is_replaced(served: Served) -> None:
    with served.client(None) as client:
        token = client.post("/v1/devices").json()["token"]
    died, _ = workers_of(served)
    os.kill(died, signal.SIGKILL)
    await_replacement(served, died, seconds=60)
    with served.client(None, token=token) as client:
        assert client.get("/v1/session").status_code == 200


def test_a_worker_that_hangs_keeps_no_other_from_being_replaced(module_dsn: str) -> None:
    with serving(module_dsn, "--workers", "2") as server:
        with server.client("d1") as client:
            assert client.get("/v1/session").status_code == 200
        hanging, died = workers_of(server)
        os.kill(hanging, signal.SIGSTOP)
        try:
            os.kill(died, signal.SIGKILL)
            await_replacement(server, died, seconds=30)
        finally:
            os.kill(hanging, signal.SIGCONT)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_stop_ends_all_processes(module_dsn: str) -> None:
    with serving(module_dsn, "--workers", "2") as server:
        with server.client("d1") as client:
            assert client.get("/v1/session").status_code == 200
        workers = workers_of(server)
        assert server.stop() == 0
        assert not any(_command(pid) for pid in workers)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_without_a_word(module_dsn: str, workers: str) -> None:
    with serving(module_dsn, "--workers", workers) as server:
        with server.client("d1") as client:
            assert client.get("/v1/session").status_code == 200
        before = server.said
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(60) == 0
    assert server.said == before


def test_ctrl_c_while_processes_start_ends_them_without_a_word(module_dsn: str) -> None:
    with serving(module_dsn, "--workers", "2") as server:
        until = time.monotonic() + 60
        while len(workers_of(server)) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        before = server.said
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(60) == 0
    assert server.said == before


def test_bare_device_ids_are_for_this_machine_and_it_is_said_once(module_dsn: str) -> None:
    with serving(module_dsn) as server, server.client("d1") as client:
        assert client.get("/v1/session").status_code == 200
        assert client.get("/v1/session", headers={"Host": "somebody.example"}).status_code == 401
        assert client.get("/v1/session", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401
    assert server.said.count("MOORLINE_DEVICE_AUTH") == 1
    for mode in ("", "none"):
        told = refused("--host", EVERYWHERE, DATABASE_URL=module_dsn, MOORLINE_DEVICE_AUTH=mode)
        assert "signed or jwt" in told


def test_what_keeps_it_from_serving_is_one_line(empty_dsn: str, module_dsn: str) -> None:
    assert "moorline migrate" in refused(DATABASE_URL=empty_dsn)
    assert "MOORLINE_RATE_DEVICE" in refused(DATABASE_URL=module_dsn, MOORLINE_RATE_DEVICE="often")
    assert "MOORLINE_JWT_JWKS" in refused(DATABASE_URL=module_dsn, MOORLINE_DEVICE_AUTH="jwt")
    with serving(module_dsn) as server:
        assert "--port" in refused("--port", str(server.port), DATABASE_URL=module_dsn)


def test_forwarded_addresses_are_believed_from_named_proxies_only(dsn: str) -> None:
    limits = {"MOORLINE_RATE_ADDRESS": "3/hour", "MOORLINE_DEVICE_AUTH": "signed"}

    def statuses(server: Served) -> list[int]:
        with server.client(None) as client:
            return [
                client.post("/v1/devices", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code
                for number in range(5)
            ]

    with serving(dsn, **limits) as server:
        assert statuses(server) == [201, 201, 201, 429, 429]
    with serving(dsn, MOORLINE_PROXIES="127.0.0.0/8", **limits) as server:
        assert statuses(server) == [201] * 5


async def test_other_origins_are_let_in_only_if_they_are_named(dsn: str) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": "Authorization, Content-Type"}
    async with moorline_on(dsn) as moorline:
        async with asking(moorline, device_auth="signed") as client:
            closed = await client.options("/v1/messages", headers=asked)
        async with asking(moorline, device_auth="signed", cors_origins=("https://shop.example",)) as client:
            opened = await client.options("/v1/messages", headers=asked)
            other = await client.options("/v1/messages", headers=asked | {"Origin": "https://other.example"})
            token = (await client.post("/v1/devices")).json()["token"]
            answer = await client.get("/v1/session", headers=bearer(token) | {"Origin": "https://shop.example"})
    assert "access-control-allow-origin" not in closed.headers
    assert "access-control-allow-origin" not in other.headers
    assert opened.headers["access-control-allow-origin"] == "https://shop.example"
    assert "X-Device-Token" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_an_ipv6_network_is_one_address(host: str, expected: str) -> None:
    assert address_of(Request({"type": "http", "client": (host, 1), "headers": []})) == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("device_auth", "basic", "'none', 'signed' or 'jwt'"),
        ("token_keys", "short", "at least 32"),
        ("rate_device", "often", "60/minute"),
        ("rate_address", "60", "60/minute"),
        ("proxies", "proxy.example", "10.0.0.0/8"),
        ("proxies", "*", "10.0.0.0/8"),
        ("cors_origins", "*", "https://www.example.com"),
        ("body_max", 10, "greater than or equal to 1024"),
        ("body_timeout", 0, "greater than 0"),
        ("jwt_algorithms", "RS256,HS256", "'RS256'"),
        ("jwt_algorithms", "none", "'RS256'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpSettings(**{name: value})  # type: ignore[arg-type]
    assert re.search(rf"MOORLINE_{name.upper()}: .*{re.escape(allowed)}", str(caught.value))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "a key of at least thirty-two characters"
    for name, value in {
        "DEVICE_AUTH": "signed",
        "TOKEN_KEYS": f"{key}, {key}2",
        "PROXIES": "10.0.0.0/8,127.0.0.1",
        "CORS_ORIGINS": "https://shop.example",
        "JWT_ALGORITHMS": "ES256,EdDSA",
        "RATE_DEVICE": "5/second",
    }.items():
        monkeypatch.setenv(f"MOORLINE_{name}", value)
    settings = HttpSettings()
    assert [each.get_secret_value() for each in settings.token_keys] == [key, f"{key}2"]
    assert settings.proxies == ("10.0.0.0/8", "127.0.0.1")
    assert settings.jwt_algorithms == ("ES256", "EdDSA")
    assert key not in repr(settings)


async def test_the_page_and_its_files_are_served_with_a_strict_policy(dsn: str) -> None:
    pytest.importorskip("moorline.web")
    async with moorline_on(dsn) as moorline, asking(moorline) as client:
        page = await client.get("/")
        script = await client.get("/device.js")
        again = await client.get("/device.js", headers={"If-None-Match": script.headers["ETag"]})
        missing = await client.get("/__init__.py")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == script.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert missing.status_code == 404


async def test_the_documentation_needs_no_scripts_from_elsewhere(dsn: str) -> None:
    async with moorline_on(dsn) as moorline, asking(moorline) as client:
        assert [(await client.get(path)).status_code for path in ("/docs", "/redoc")] == [404, 404]
        assert (await client.get("/openapi.json")).json()["info"]["title"] == "Moorline"


def test_an_idle_stream_is_kept_alive(module_dsn: str) -> None:
    with serving(module_dsn) as server, server.client("d9") as client:
        said: list[str] = []
        with client.stream(
            "POST", "/v1/messages", json={"text": "in 16 seconds"}, headers={"Accept": "text/event-stream"}
        ) as answer:
            for line in answer.iter_lines():
                said.append(line)
    assert ": ping" in said
    assert any(line.startswith("event: turn_finished") for line in said)
