"""What praxis.py needs of others, to try it without them: a model that follows German rules, and a payment service.

`python rehearsal.py` serves the model at http://127.0.0.1:8100/v1 and the payments at http://127.0.0.1:8200.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from threading import Thread
from typing import Any
from uuid import uuid4

from moorline.testing import Call, ModelReply, ModelRequest, serve

AGENTS = {
    "buchhaltung": "rechnung|bezahl",
    "rezepte": "rezept",
    "einschaetzung": "schmerz|fieber|husten|tablette",
    "termine": "termin|vorsorge|impfung|sprechstunde",
}
PLACES = {"erste": 0, "zweite": 1, "dritte": 2}


def model(request: ModelRequest) -> ModelReply:
    """The answer of the model: a call, or a text."""
    said, offered = request.said[-1].lower(), request.functions
    whose = next((agent for agent, words in AGENTS.items() if re.search(words, said)), None)
    if "route" in offered:
        return _call("route", agent=whose or "empfang")
    if "answer" in offered:
        return _reading(json.loads(request.said[-1]))
    results = [*_results(request)]
    hand_over = offered.get("hand_over", {}).get("parameters", {}).get("properties", {})
    if not results and whose in hand_over.get("agent", {}).get("enum", ()):
        return _call("hand_over", agent=whose, reason=said)
    if "end_session" in offered and not results and re.search("danke|tschüss", said):
        return _call("end_session")
    for tool, answers in (("remember_name", _reception), ("pay_invoice", _accounts), ("book", _appointments)):
        if tool in offered:
            return answers(request, results)
    return _triage(said)


def _reception(request: ModelRequest, results: list[Any]) -> ModelReply:
    name = re.search(r"ich hei(?:ß|ss)e (\w+)", request.said[-1], re.IGNORECASE)
    if name and not results:
        return _call("remember_name", name=name[1])
    known = results[0]["name"] if results else "".join(re.findall(r"heißt (\w+)", request.briefing))
    return ModelReply(text=f"Guten Tag{known and ', '}{known}! Was kann ich für Sie tun?")


def _accounts(request: ModelRequest, results: list[Any]) -> ModelReply:
    if results:
        return ModelReply(text=_outcome(results[0], "bezahlt", "Das ist bezahlt, vielen Dank."))
    numbers = re.findall(r"\d{3,}", " ".join(request.said))
    if not numbers:
        return ModelReply(text="Welche Nummer hat die Rechnung?")
    tool = "pay_invoice" if re.search("bezahl|zahlen", request.said[-1].lower()) else "amount_due"
    return _call(tool, number=int(numbers[-1]))


def _appointments(request: ModelRequest, results: list[Any]) -> ModelReply:
    found = [result for result in _results(request, of_all=True) if isinstance(result, dict) and result.get("slots")]
    if results:
        if found and results[0] == found[0]:
            times = ", ".join(f"{datetime.fromisoformat(slot['start']):%d.%m. %H:%M}" for slot in found[0]["slots"][:3])
            return ModelReply(text=f"Frei ist: {times}. Der erste, der zweite oder der dritte?")
        return ModelReply(text=_outcome(results[0], "status", "Der Termin ist eingetragen. Bis dann!"))
    place = next((place for word, place in PLACES.items() if word in request.said[-1].lower()), None)
    if found and place is not None:
        return _call("book", service=found[0]["service"], start=found[0]["slots"][place]["start"])
    service = re.search("vorsorge|impfung", request.said[-1].lower())
    return _call("find_slots", service=service[0].title() if service else "Sprechstunde")


def _triage(said: str) -> ModelReply:
    advice = "Nehmen Sie 400 mg Ibuprofen." if "tablette" in said else "Bitte kommen Sie in die Praxis."
    urgency = "heute" if "fieber" in said else "diese Woche"
    return ModelReply(text=json.dumps({"urgency": urgency, "symptoms": [said], "advice": advice}))


def _reading(told: dict[str, Any]) -> ModelReply:
    """What a message answers that is none of the options."""
    more = bool(re.search("aber|lieber um|nicht heute", told["message"].lower()))
    agrees = re.match("ja|klar|gern|bitte|in ordnung", told["message"].lower())
    refuses = re.match("nein|lieber nicht", told["message"].lower())
    if not (agrees or refuses):
        return _call("answer", answers=False, more=False)
    return _call("answer", answers=True, more=more, answer=told["options"][0 if agrees else 1])


def _outcome(result: Any, key: str, good: str) -> str:
    if isinstance(result, str):
        return f"Offen sind {result}."
    if key in result:
        return good
    return "Gut, dann nicht." if result.get("code") == "not_confirmed" else str(result.get("error", "Auf Wiedersehen!"))


def _results(request: ModelRequest, *, of_all: bool = False) -> Iterator[Any]:
    """The results of the calls since the person's last message, or of all, the newest first."""
    newest_first = reversed(request.messages)
    for message in newest_first if of_all else takewhile(lambda each: each["role"] != "user", newest_first):
        if message["role"] == "tool":
            yield json.loads((message["content"] or "").partition("\n")[0])


def _call(name: str, /, **arguments: Any) -> ModelReply:
    return ModelReply(calls=(Call(name=name, arguments=arguments),))


class Payments(ThreadingHTTPServer):
    """A payment service: it charges once for each idempotency key."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Payment)
        self.charged: dict[str, dict[str, Any]] = {}
        self.refuses = False
        """Whether it answers with an error after it has charged, as services do that are overloaded."""
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()


class _Payment(BaseHTTPRequestHandler):
    server: Payments

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        payment = {"id": f"pay-{uuid4()}", **body}
        payment = self.server.charged.setdefault(self.headers["Idempotency-Key"], payment)
        answer = json.dumps(payment).encode()
        self.send_response(503 if self.server.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


async def main() -> None:
    payments = Payments(8200)
    async with serve(model, port=8100) as base_url:
        print(f"OPENAI_BASE_URL={base_url} PAYMENTS_URL={payments.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
