"""Tokens of the team's own issuer: only its signatures, for us, in time, and for a device."""

import hmac
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from moorline import ConfigurationError, Moorline
from moorline.http import HttpSettings, router

from .asking import asking, bearer, moorline_on

ISSUER, AUDIENCE = "https://issuer.example", "chat"
ISSUED: dict[str, Any] = {"device_auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)

JWKS = {
    "keys": [
        RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True) | {"kid": "r1", "use": "sig", "alg": "RS256"},
        ECAlgorithm.to_jwk(EC.public_key(), as_dict=True) | {"kid": "e1", "use": "sig"},
        {"kty": "oct", "kid": "shared", "k": urlsafe_b64encode(b"s" * 32).decode().rstrip("=")},
    ]
}


def token(*, key: Any = RSA, kid: str | None = "r1", alg: str = "RS256", **claims: Any) -> str:
    said = {"sub": "d1", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60} | claims
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, alg, headers)


def by_hand(header: dict[str, Any], signature: bytes = b"") -> str:
    """A token whose parts no library would put together."""
    claims = {"sub": "d1", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def confused() -> str:
    """Signed with the public key, as if it were a shared secret."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    unsigned = by_hand({"alg": "HS256", "typ": "JWT", "kid": "r1"}).rstrip(".")
    signature = hmac.digest(pem, unsigned.encode(), "sha256")
    return f"{unsigned}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.fixture
def jwks(tmp_path: Path) -> str:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(JWKS))
    return str(file)


@pytest.fixture
async def moorline(dsn: str) -> AsyncIterator[Moorline]:
    async with moorline_on(dsn, channels={"whatsapp"}) as opened:
        yield opened


@pytest.fixture
async def client(moorline: Moorline, jwks: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with asking(moorline, jwt_jwks=jwks, **ISSUED) as asked:
        yield asked


async def test_the_claim_is_the_device(client: httpx2.AsyncClient, moorline: Moorline) -> None:
    said = await client.post("/v1/messages", json={"text": "hello"}, headers=bearer(token(sub="customer-7")))
    assert said.status_code == 200
    assert len(await moorline.transcript("customer-7")) == 1
    agreed = await client.get("/v1/session", headers=bearer(token()) | {"X-Device-ID": "d1"})
    other = await client.get("/v1/session", headers=bearer(token()) | {"X-Device-ID": "d2"})
    assert [agreed.status_code, other.status_code] == [200, 401]


async def test_there_is_no_way_to_get_a_token_here(client: httpx2.AsyncClient) -> None:
    refused = await client.post("/v1/devices")
    assert (refused.status_code, refused.json()["error"]) == (405, "MethodNotAllowed")
    assert refused.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "make",
    [
        token,
        lambda: token(key=EC, kid="e1", alg="ES256"),
        lambda: token(aud=["other", AUDIENCE]),
        lambda: token(exp=time.time() - 10),
    ],
    ids=["rsa", "ec", "several audiences", "within the leeway"],
)
async def test_a_token_of_the_issuer_is_accepted(client: httpx2.AsyncClient, make: Callable[[], str]) -> None:
    assert (await client.get("/v1/session", headers=bearer(make()))).status_code == 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: token(exp=time.time() - 120),
        lambda: token(nbf=time.time() + 120),
        lambda: token(iat=time.time() + 120),
        lambda: token(exp=None),
        lambda: token(iss="https://other.example"),
        lambda: token(iss=None),
        lambda: token(aud="other"),
        lambda: token(aud=None),
        lambda: token(sub=None),
        lambda: token(sub="a device"),
        lambda: token(sub="whatsapp:+4915112345"),
        lambda: token(sub="x" * 129),
        lambda: token(key=STRANGER),
        lambda: token(kid="unknown"),
        lambda: token(kid=None),
        lambda: token(kid="e1"),
        lambda: token(alg="RS512"),
        lambda: token(key="s" * 32, kid="shared", alg="HS256"),
        lambda: token(key=None, alg="none"),
        lambda: by_hand({"alg": "none", "kid": "r1"}),
        lambda: by_hand({"alg": "None", "kid": "r1"}),
        lambda: by_hand({"alg": "RS256", "kid": "r1"}),
        lambda: by_hand({"alg": "RS256", "kid": ["r1"]}),
        lambda: by_hand({"alg": "RS256"}),
        confused,
        lambda: token()[:-2],
        lambda: token().rpartition(".")[0],
        lambda: f"{token().rpartition('.')[0]}.{token(sub='d2').rpartition('.')[2]}",
        lambda: "a.b.c",
        lambda: urlsafe_b64encode(b"[" * 5_000).decode() + ".e30.",
        lambda: token(exp=float("inf")),
        lambda: "m1.a.b",
    ],
)
async def test_any_other_token_is_refused(client: httpx2.AsyncClient, make: Callable[[], str]) -> None:
    refused = await client.get("/v1/session", headers=bearer(make()))
    assert refused.status_code == 401
    assert refused.json()["error"] == "Unidentified"


@contextmanager
def key_server(answers: list[int]) -> Iterator[str]:
    """Serves the JWKS with the next of these statuses, the last one again and again; with 204, what is no JWKS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.end_headers()
            if status != 204:
                self.wfile.write(json.dumps(JWKS).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()


async def test_keys_at_a_url_are_fetched_when_they_are_needed(moorline: Moorline) -> None:
    with key_server([500, 204, 200, 500]) as url:
        async with asking(moorline, jwt_jwks=url, **ISSUED) as client:
            found = [await client.get("/v1/session", headers=bearer(token())) for _ in range(4)]
            unknown = await client.get("/v1/session", headers=bearer(token(kid="unknown")))
    assert [each.status_code for each in found] == [503, 503, 200, 200]
    assert found[0].json()["retryable"]
    assert unknown.status_code == 401, "and it is not fetched again for that"


async def test_what_is_missing_or_weak_is_told_when_the_router_is_made(moorline: Moorline, jwks: str) -> None:
    with pytest.raises(ConfigurationError, match="MOORLINE_JWT_JWKS and MOORLINE_JWT_AUDIENCE"):
        router(moorline, settings=HttpSettings(device_auth="jwt", jwt_issuer=ISSUER))
    with pytest.raises(ConfigurationError, match=r"MOORLINE_JWT_JWKS: .*no-such-file"):
        router(moorline, settings=HttpSettings(jwt_jwks="no-such-file", **ISSUED))
    with pytest.raises(ConfigurationError, match=r"MOORLINE_JWT_JWKS: .*scheme"):
        router(moorline, settings=HttpSettings(jwt_jwks="file:///etc/jwks.json", **ISSUED))
    with pytest.raises(ConfigurationError, match=r"MOORLINE_JWT_ALGORITHMS: .*'RS256'"):
        HttpSettings(jwt_algorithms=("HS256",))  # type: ignore[arg-type]  # it is refused
