"""Messages over HTTP: one turn each, as JSON or as a stream of events, whatever becomes of the client."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from .serving import Served, serving

Event = dict[str, Any]


@pytest.fixture(scope="module")
def served(module_dsn: str) -> Iterator[Served]:
    with serving(module_dsn, MOORLINE_ON_CANCEL="release") as server:  # which is not for clients that come back
        yield server


def events(client: httpx2.Client, body: dict[str, Any]) -> list[Event]:
    with client.stream("POST", "/v1/messages", json=body, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        return parsed("".join(answer.iter_text()))


def parsed(text: str) -> list[Event]:
    """The events of a stream; each names its type and number outside its JSON as well."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            event = json.loads(fields["data"])
            assert (fields["event"], fields["id"]) == (event["type"], str(event["seq"]))
            found.append(event)
    return found


def test_a_message_gets_its_reply_and_the_same_one_when_it_comes_again(served: Served) -> None:
    with served.client("d1") as client:
        first = client.post("/v1/messages", json={"text": "hello", "message_id": "m1"})
        again = client.post("/v1/messages", json={"text": "hello", "message_id": "m1"})
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json() | {"replayed": False}
    assert first.json()["text"] == "You said: hello"
    assert first.json()["message_id"] == "m1"
    assert first.json()["agent"] == "hair"


def test_a_stream_tells_the_turn_from_its_start_to_its_reply(served: Served) -> None:
    with served.client("d2") as client:
        told = events(client, {"text": "hello", "message_id": "m1"})
        again = events(client, {"text": "hello", "message_id": "m1"})
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    assert told[0]["type"] == "turn_started"
    assert told[-1]["type"] == "turn_finished"
    assert told[-1]["reply"]["text"] == "You said: hello"
    assert "".join(event["text"] for event in told if event["type"] == "text_delta") == "You said: hello"
    assert [event["type"] for event in again] == ["turn_started", "text_delta", "turn_finished"]
    assert again[0]["replayed"]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_goes_away_ends_no_turn(served: Served, accept: str) -> None:
    body = {"text": "answer in 1.5 seconds", "message_id": "m1"}
    with served.client(f"gone-{accept[:4]}") as client:
        with pytest.raises(httpx2.ReadTimeout):
            _read(client, body, accept, timeout=0.5)
        again = client.post("/v1/messages", json=body).json()
    assert (again["turn_no"], again["replayed"]) == (1, True)


def _read(client: httpx2.Client, body: dict[str, Any], accept: str, timeout: float) -> None:
    with client.stream("POST", "/v1/messages", json=body, headers={"Accept": accept}, timeout=timeout) as answer:
        answer.read()


def test_a_message_that_comes_again_while_it_is_answered_waits_for_the_same_turn(served: Served) -> None:
    body = {"text": "answer in 1 seconds", "message_id": "m1"}
    with served.client("d3") as client, ThreadPoolExecutor(4) as threads:
        replies = [*threads.map(lambda _: client.post("/v1/messages", json=body).json(), range(4))]
    assert {reply["turn_no"] for reply in replies} == {1}
    assert sorted(reply["replayed"] for reply in replies) == [False, True, True, True]


def test_no_value_of_a_body_reaches_the_context(served: Served) -> None:
    with served.client("d4") as client:
        refused = client.post("/v1/messages", json={"text": "hello", "values": {"admin": True}})
    assert refused.status_code == 422


@pytest.mark.parametrize("message_id", ["m1", "a/b", "ä ?#%2F", "a\nb"])
def test_a_message_is_stopped_by_its_device_only(served: Served, message_id: str) -> None:
    path = f"/v1/messages/{quote(message_id, safe='')}/stop"
    device = f"stop-{message_id.encode().hex()}"
    with served.client(device) as client, served.client("other") as other, ThreadPoolExecutor(1) as threads:
        body = {"text": "answer in 20 seconds", "message_id": message_id}
        answer = threads.submit(client.post, "/v1/messages", json=body)
        time.sleep(1)
        assert other.post(path).json() == {"stopped": False}
        assert client.post(path).json() == {"stopped": True}
        begun = time.monotonic()
        stopped = answer.result()
        assert time.monotonic() - begun < 5
        assert stopped.status_code == 200
        assert client.post("/v1/messages", json=body).json() == stopped.json() | {"replayed": True}
        assert client.post(path).json() == {"stopped": False}


def test_the_transcript_comes_in_pages(served: Served) -> None:
    with served.client("d5") as client:
        for number in range(1, 6):
            client.post("/v1/messages", json={"text": f"number {number}", "message_id": f"m{number}"})
        pages, before = [], None
        while True:
            query = {"limit": "2"} | ({} if before is None else {"before": str(before)})
            page = client.get("/v1/transcript", params=query).json()
            pages.append([(turn["turn_no"], turn["message_ids"], turn["texts"]) for turn in page["turns"]])
            before = page["next"]
            if before is None:
                break
    numbered = [(number, [f"m{number}"], [f"number {number}"]) for number in range(5, 0, -1)]
    assert pages == [numbered[:2], numbered[2:4], numbered[4:]]


def test_the_session_says_who_holds_it_until_it_is_erased(served: Served) -> None:
    nobody = {"agent": None, "since": None, "expires_at": None, "pending": None}
    with served.client("d6") as client:
        assert client.get("/v1/session").json() == nobody
        client.post("/v1/messages", json={"text": "hello"})
        held = client.get("/v1/session").json()
        assert held["agent"] == "hair"
        assert held["since"] < held["expires_at"]
        assert client.delete("/v1/device").status_code == 204
        assert client.get("/v1/session").json() == nobody
        assert client.get("/v1/transcript").json() == {"turns": [], "next": None, "as_of": None}
        assert client.delete("/v1/device").status_code == 204


def test_a_stop_of_the_server_finishes_the_turns_that_run(module_dsn: str) -> None:
    with serving(module_dsn) as server, server.client("d7") as client, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.post, "/v1/messages", json={"text": "in 2 seconds", "message_id": "m1"})
        with pytest.raises(httpx2.ReadTimeout):
            client.post("/v1/messages", json={"text": "in 2.5 seconds", "message_id": "m2"}, timeout=0.5)
        time.sleep(0.5)
        assert server.stop() == -15
        assert answer.result().json()["text"] == "You said: in 2 seconds"
    with serving(module_dsn) as server, server.client("d7") as client:
        turns = client.get("/v1/transcript").json()["turns"]
    # Which of the two comes first is the machine's to say.
    assert sorted(turn["message_ids"] for turn in turns) == [["m1"], ["m2"]]
