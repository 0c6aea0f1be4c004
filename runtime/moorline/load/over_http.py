"""A server under load: `moorline serve`, or an app of your own with its router, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2

from moorline.errors import ConfigurationError, MoorlineError
from moorline.load.delivering import TryLater
from moorline.load.targets import Answer, StoredTurn

TIMEOUT = 90.0
"""Seconds for an answer: longer than a turn may take by default. For so long, what is no message is asked again."""

PAUSE = 1.0
"""Seconds before a request is sent again, if the server does not say."""


class Refused(MoorlineError):
    """The server's problem, which does not go away."""


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[OverHttp]:
    """The server at `url`, the address above `/v1`. Raises `ConfigurationError` if there is none, or if it only takes
    tokens of an issuer of its own."""
    try:
        client = httpx2.AsyncClient(
            base_url=url.rstrip("/"), timeout=TIMEOUT, limits=httpx2.Limits(max_connections=None), trust_env=False
        )
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConfigurationError(f"{url!r} is not the address of a server: {error}") from error
    async with client:
        target = OverHttp(client, url)
        await target.find_out()
        yield target


class OverHttp:
    """Each device is known by its header, or by a token that the server gives it."""

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._tokens: dict[str, str] = {}
        self._gives_tokens = False

    async def find_out(self) -> None:
        """How the server wants to know a device."""
        try:
            asked = await self._client.get("/v1/session", headers={"X-Device-ID": str(uuid4())})
        except httpx2.HTTPError as error:
            raise ConfigurationError(
                f"No server answers at {self._url} ({type(error).__name__}). Its address begins with http:// or https://."
            ) from error
        if asked.status_code not in (200, 401):
            raise ConfigurationError(
                f"{self._url}/v1/session answers with {asked.status_code}, which Moorline does not. Name the address "
                "under which /v1 is."
            )
        if asked.status_code == 200 and not _object(asked):  # noqa: PLR2004
            raise ConfigurationError(f"What answers at {self._url} is no server of Moorline's: this is a page.")
        self._gives_tokens = asked.status_code == 401  # noqa: PLR2004 - HTTP's

    async def new_device(self) -> str:
        if not self._gives_tokens:
            return str(uuid4())
        try:
            made = await self._ask("POST", "/v1/devices")
        except Refused as error:
            raise ConfigurationError(
                f"The server gives no tokens ({error}); a load test needs MOORLINE_DEVICE_AUTH none or signed."
            ) from error
        self._tokens[made["device_id"]] = made["token"]
        return str(made["device_id"])

    async def send(self, device_id: str, text: str, message_id: str) -> Answer:
        body = {"text": text, "message_id": message_id}
        reply = await self._once("POST", "/v1/messages", device_id, json=body)
        return Answer(text=reply["text"], turn_no=reply["turn_no"])

    async def transcript(self, device_id: str) -> Sequence[StoredTurn]:
        turns: list[StoredTurn] = []
        before: int | None = None
        while True:
            wanted = {} if before is None else {"before": before}
            page = await self._ask("GET", "/v1/transcript", device_id, params=wanted)
            turns += (
                StoredTurn(
                    message_ids=turn["message_ids"], texts=turn["texts"], reply=turn["reply"], agent=turn["agent"]
                )
                for turn in page["turns"]
            )
            before = page["next"]
            if before is None:
                return turns[::-1]

    async def erase(self, device_id: str) -> None:
        await self._ask("DELETE", "/v1/device", device_id)

    async def _ask(self, method: str, path: str, device_id: str | None = None, **what: Any) -> Any:
        """Sends the request until it is answered, but begins no more than `TIMEOUT` after the first time."""
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                return await self._once(method, path, device_id, **what)
            except TryLater as error:
                if time.monotonic() + error.seconds > until:
                    raise
                await asyncio.sleep(error.seconds)

    async def _once(self, method: str, path: str, device_id: str | None = None, **what: Any) -> Any:
        headers = {}
        if device_id is not None:
            token = self._tokens.get(device_id)
            headers = {"X-Device-ID": device_id} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            answer = await self._client.request(method, path, headers=headers, **what)
        except httpx2.HTTPError as error:
            raise TryLater(f"{type(error).__name__}", seconds=PAUSE) from error
        if not answer.is_success:
            raise _problem(answer)
        if answer.content and not (found := _object(answer)):
            raise Refused(f"{answer.status_code}: the answer is no JSON of Moorline's.")
        return found if answer.content else None


def _object(answer: httpx2.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is something else, as a proxy's page is."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _problem(answer: httpx2.Response) -> MoorlineError:
    told = _object(answer)
    text = f"{answer.status_code} {told.get('error', '')}: {told.get('detail', '')}"
    if told.get("retryable"):
        after = answer.headers.get("retry-after", "")
        return TryLater(text, seconds=float(after) if after.isdecimal() else PAUSE)
    return Refused(text)
