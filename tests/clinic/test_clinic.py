"""The app of docs/clinic, unchanged: what people may rely on when they write to this practice."""

import asyncio
import json
from types import ModuleType
from typing import Any

import asyncpg

from moorline import Moorline, Resume
from moorline.replay.conversations import read_conversations
from tests.clinic.conftest import FOLDER, Say

CALL_112 = "Das kann ein Notfall sein: Rufen Sie sofort 112 an."
BOOKED = "SELECT count(*) FROM appointments WHERE status = 'booked'"
PAY = ("Ist Rechnung 4711 noch offen?", "Dann bezahle ich die")


def test_the_whole_app_has_under_150_lines() -> None:
    assert len((FOLDER / "praxis.py").read_text().splitlines()) < 150


async def test_an_appointment_is_booked_with_a_yes_to_exactly_that_time(say: Say, clinic_dsn: str) -> None:
    offered = await say("Guten Tag, ich heiße Ayşe", "Ich hätte gern einen Termin zur Vorsorge")
    assert (offered.agent, offered.startswith("Frei ist: ")) == ("termine", True)
    asked = await say("der zweite bitte")
    assert asked.startswith("Soll ich Vorsorge bei Dr. Weber am ")
    assert asked.endswith(" Uhr buchen? (ja / nein)")
    assert asked.interrupt is not None
    assert asked.interrupt.options == ("ja", "nein")
    assert (await say("ja, aber lieber nicht so früh")).startswith("Frei ist: ")
    assert await _count(clinic_dsn, BOOKED) == 0
    assert await say("der erste", "ja gern") == "Der Termin ist eingetragen. Bis dann!"
    assert await _count(clinic_dsn, BOOKED) == 1
    assert (await say("danke"), await say("Hallo")) == (
        "Auf Wiedersehen!",
        "Guten Tag, Ayşe! Was kann ich für Sie tun?",
    )


async def test_an_invoice_is_paid_after_a_yes_and_once_whoever_pays_it(
    say: Say, payments: Any, clinic_dsn: str
) -> None:
    assert await say(*PAY) == "Soll ich Rechnung 4711 über 42,00 € jetzt bezahlen? (ja / nein)"
    assert (await say("nein"), payments.charged) == ("Gut, dann nicht.", {})
    await say("Dann bezahle ich die")
    await say(*PAY, device="d2")  # the same invoice
    assert await say("ja") == "Das ist bezahlt, vielen Dank."
    assert await say("ja", device="d2") == "Rechnung 4711 ist schon bezahlt."
    assert [each["number"] for each in payments.charged.values()] == [4711]
    assert await say("Bezahle Rechnung 900") == "Rechnung 900 gibt es nicht."


async def test_two_who_pay_at_the_same_time_are_charged_once(say: Say, payments: Any) -> None:
    devices = [f"d{number}" for number in range(4)]
    await asyncio.gather(*(say(*PAY, device=device) for device in devices))
    await asyncio.gather(*(say("ja", device=device) for device in devices))
    assert len(payments.charged) == 1


async def test_a_payment_whose_answer_was_lost_is_tried_again_under_its_key(say: Say, payments: Any) -> None:
    payments.refuses = True
    assert await say(*PAY, "ja") == "Der Zahlungsdienst antwortet nicht; später geht es weiter."
    payments.refuses = False
    assert await say("Dann bezahle ich die jetzt", "ja") == "Das ist bezahlt, vielen Dank."
    assert len(payments.charged) == 1


async def test_an_emergency_is_one_for_whoever_is_asked(say: Say) -> None:
    whose = {"Hallo": "empfang", "Ein Termin": "termine", "Rechnung 4711": "buchhaltung"}
    whose |= {"Ich habe Husten": "einschaetzung", "Ein Rezept": "rezepte"}
    for first, agent in whose.items():
        assert (await say(first, device=agent)).agent == agent
        assert await say("Ich habe Brustschmerzen", device=agent) == CALL_112


async def test_how_urgent_it_is_has_a_form_and_nobody_is_told_a_dose(say: Say, praxis: ModuleType) -> None:
    reply = await say("Ich habe Husten und Fieber")
    assert isinstance(reply.output, praxis.TriageResult)
    assert (reply, reply.output.urgency) == ("Bitte kommen Sie in die Praxis. (Dringlichkeit: heute)", "heute")
    refused = await say("Welche Tablette hilft gegen Fieber?")
    assert refused.startswith("Diagnosen und Dosierungen bespricht die Ärztin nur persönlich mit Ihnen.")
    assert refused.output is None


async def test_a_prescription_is_the_doctors_to_give_not_the_persons(say: Say, app: Moorline) -> None:
    asked = await say("Ich brauche ein Rezept für Ramipril")
    assert asked == "Ihre Bitte liegt bei der Ärztin: „Ich brauche ein Rezept für Ramipril“"
    assert asked.interrupt is not None
    own = await app.run(Resume(interrupt_id=asked.interrupt.id, value="ja"), {"device_id": "d1"})
    assert own == asked
    assert (
        await say("10 mg bitte")
        == "Ihre Bitte liegt bei der Ärztin: „Ich brauche ein Rezept für Ramipril / 10 mg bitte“"
    )
    waiting = await app.pending("d1")
    assert waiting is not None
    given = await app.run(Resume(interrupt_id=waiting.id, value="ja", by="Dr. Weber"), {"device_id": "d1"})
    assert given == "Dr. Weber hat das Rezept ausgestellt."
    told = [(entry.texts, entry.by) for entry in await app.transcript("d1")]
    assert told[1:] == [(("ja",), None), (("10 mg bitte",), None), (("ja",), "Dr. Weber")]
    assert (await say("danke")).agent == "empfang"


async def test_a_name_is_remembered_after_starting_over_and_gone_after_an_erasure(say: Say, app: Moorline) -> None:
    assert await say("ich heiße Ayşe", "von vorn") == "Gut, fangen wir von vorn an. Was kann ich für Sie tun?"
    assert await say("Hallo") == "Guten Tag, Ayşe! Was kann ich für Sie tun?"
    await app.erase("d1")
    assert await say("Hallo") == "Guten Tag! Was kann ich für Sie tun?"


async def test_an_erasure_leaves_an_invoice_paid_and_does_not_say_by_whom(
    say: Say, app: Moorline, clinic_dsn: str
) -> None:
    await say(*PAY, "ja")
    await app.erase("d1")
    assert await say("Rechnung 4711?") == "Rechnung 4711 ist schon bezahlt."
    assert await _count(clinic_dsn, "SELECT count(*) FROM payments WHERE device_id <> ''") == 0


def test_what_was_recorded_is_what_the_app_has(praxis: ModuleType) -> None:
    agents = {each.name: {tool.name for tool in each.tools} for each in praxis.checked}
    for conversation in read_conversations(FOLDER / "conversations.jsonl"):
        for turn in conversation.recorded():
            assert {call.tool for call in turn.calls} <= agents[turn.agent], json.dumps(turn.agent)


async def _count(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()
