"""The same app behind the commands: set up as its page says, in the chat, over HTTP and in a replay."""

import asyncio
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.clinic.conftest import FOLDER
from tests.http.serving import serving

PROGRAM = str(Path(sys.executable).with_name("moorline"))
APP = "praxis:app"
PAGE = FOLDER / "README.md"


async def test_the_page_says_how_to_begin(empty_dsn: str, environment: dict[str, str]) -> None:
    environment = environment | {"DATABASE_URL": empty_dsn}
    assert "Applied rechnungen 0001 invoices." in await _ran("migrate", environment=environment)
    assert "3 services by 2 providers" in await _ran("catalogue", "import", "praxis.yaml", environment=environment)
    said = "Guten Tag\nEin Termin zur Impfung bitte\nder dritte\nja\nRechnung 4712 bezahlen\nJA!\n"
    greeting, offer, question, booked, payment, paid = (
        await _ran("chat", "--device", "d1", environment=environment, said=said)
    ).splitlines()
    assert greeting == "[empfang] Guten Tag! Was kann ich für Sie tun?"
    assert offer.startswith("[termine] Frei ist: ")
    assert question.startswith("[termine] Soll ich Impfung bei Schwester Ayşe am ")
    assert booked == "[termine] Der Termin ist eingetragen. Bis dann!"
    assert payment == "[buchhaltung] Soll ich Rechnung 4712 über 99,00 € jetzt bezahlen? (ja / nein)"
    assert paid == "[buchhaltung] Das ist bezahlt, vielen Dank."


async def test_over_http_a_question_has_its_options_and_the_doctor_answers_from_elsewhere(
    environment: dict[str, str], praxis: ModuleType, clinic_dsn: str, payments: Any
) -> None:
    def person(url: str) -> None:
        with served.client("d1") as client:

            def send(message_id: str, **message: Any) -> Any:
                return client.post("/v1/messages", json={"message_id": message_id, **message}).raise_for_status().json()

            asked = send("m1", text="Bitte Rechnung 4711 bezahlen")
            assert asked["interrupt"]["value"]["options"] == ["ja", "nein"]
            paid = send("m2", resume={"interrupt_id": asked["interrupt"]["id"], "value": "ja"})
            assert paid["text"] == "Das ist bezahlt, vielen Dank."
            assert len(payments.charged) == 1
            asked = send("m3", text="von vorn") and send("m4", text="Ich brauche ein Rezept für Ramipril")
            refused = send("m5", resume={"interrupt_id": asked["interrupt"]["id"], "value": "ja"})
            assert refused["text"].startswith("Ihre Bitte liegt bei der Ärztin")
            triage = send("m6", text="Ich habe Brustschmerzen")
            assert triage["text"] == "Das kann ein Notfall sein: Rufen Sie sofort 112 an."
            send("m7", text="Ich brauche ein Rezept für Ramipril")

    settings = {name: value for name, value in environment.items() if name != "DATABASE_URL"}
    with serving(clinic_dsn, app=APP, folder=str(FOLDER), **settings) as served:
        await asyncio.to_thread(person, served.url)
        names: dict[str, Any] = {}
        exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], names)  # noqa: S102 - our own page
        await names["approve"]("d1", "Dr. Weber")

        def reads() -> Any:
            with served.client("d1") as client:
                return client.get("/v1/transcript").raise_for_status().json()["turns"]

        assert (await asyncio.to_thread(reads))[0]["reply"] == "Dr. Weber hat das Rezept ausgestellt."


async def test_what_was_recorded_goes_as_recorded(environment: dict[str, str]) -> None:
    replayed = await _ran("replay", "conversations.jsonl", "--restart", "none", environment=environment)
    assert replayed.startswith("2 of 2 conversations as recorded, 0 mismatches.")


async def _ran(*arguments: str, environment: dict[str, str], said: str = "") -> str:
    kept = {name: value for name, value in os.environ.items() if not re.match("MOORLINE_|OPENAI_|DATABASE_URL", name)}
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *arguments,
        env=kept | environment | {"MOORLINE_APP": APP},
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await process.communicate(said.encode())
    assert process.returncode == 0, complaint.decode()
    return told.decode()
