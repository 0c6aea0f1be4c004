"""Praxis am Kanal, the chat of a doctor's practice: a whole app in one file. README.md beside it says how to try it."""

import os
import re
from dataclasses import replace
from datetime import timedelta
from itertools import takewhile
from typing import Literal

import httpx2
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from pydantic import BaseModel, Field

from moorline import Agent, GraphAgent, Migrations, Moorline, Pass, Refuse, Settings, Texts, ToolContext, tool
from moorline_agents import RunContext, ToolRefused, handover_tools
from moorline_agents.scheduling import scheduling

PAYMENTS = os.environ.get("PAYMENTS_URL", "http://127.0.0.1:8200")
EMERGENCY = re.compile(r"brustschmerz|atemnot|keine luft|bewusstlos|schlaganfall|starke blutung", re.IGNORECASE)
CALL_112 = "Das kann ein Notfall sein: Rufen Sie sofort 112 an."
MEDICINE = re.compile(r"\d\s*(mg|ml|tropfen|tabletten)\b|diagnose|sie haben (eine|einen)\b", re.IGNORECASE)
STYLE = "Du arbeitest in der Praxis am Kanal. Antworte auf Deutsch, in ein bis drei Sätzen, ohne Fachwörter."


async def emergency(text: str, _: ToolContext) -> Pass | Refuse:
    return Refuse(CALL_112) if EMERGENCY.search(text) else Pass()


async def no_medicine(answer: object, _: ToolContext) -> Pass | Refuse:
    instead = "Diagnosen und Dosierungen bespricht die Ärztin nur persönlich mit Ihnen. Möchten Sie einen Termin?"
    return Refuse(instead) if MEDICINE.search(str(answer)) else Pass()


class Name(BaseModel):
    name: str = Field(description="wie die Person angesprochen werden möchte")


@tool()
async def remember_name(said: Name, context: ToolContext) -> Name:
    """Merkt sich, wie die Person heißt, auch für spätere Gespräche."""
    await context.memory.aput(("person",), "name", said.model_dump())
    return said


async def known(context: ToolContext) -> str:
    fact = await context.memory.aget(("person",), "name")
    return f"Die Person heißt {fact.value['name']}." if fact else ""


class Invoice(BaseModel):
    number: int = Field(description="Rechnungsnummer")


async def amount_due(invoice: Invoice, context: ToolContext) -> str:
    """Was von einer Rechnung offen ist."""
    async with context.transaction() as db:
        sql = "SELECT cents, payment_id FROM invoices LEFT JOIN payments USING (number) WHERE number = $1"
        row = await db.fetchrow(sql, invoice.number)
    if row is None or row["payment_id"]:
        raise ToolRefused(f"Rechnung {invoice.number} {'gibt es nicht' if row is None else 'ist schon bezahlt'}.")
    return f"{row['cents'] // 100},{row['cents'] % 100:02} €"


async def sure(invoice: Invoice, context: ToolContext) -> str:
    return f"Soll ich Rechnung {invoice.number} über {await amount_due(invoice, context)} jetzt bezahlen?"


@tool(effect="outside", idempotent=True, confirm=sure)
async def pay_invoice(invoice: Invoice, context: ToolContext) -> dict[str, str]:
    """Bezahlt eine Rechnung; die Person wird dabei gefragt."""
    # Whoever tries it, and however often, an invoice has one key, and is paid once.
    sql = "INSERT INTO payments VALUES ($1, $2, $3) ON CONFLICT (number) DO UPDATE SET number = $1 RETURNING key"
    async with context.transaction() as db:
        key = await db.fetchval(sql, invoice.number, context.device_id, context.idempotency_key)
    try:
        async with httpx2.AsyncClient(base_url=PAYMENTS) as service:
            answer = await service.post("/payments", json=invoice.model_dump(), headers={"Idempotency-Key": key})
        payment = answer.raise_for_status().json()["id"]
    except httpx2.HTTPError as error:
        raise ToolRefused("Der Zahlungsdienst antwortet nicht; später geht es weiter.") from error
    async with context.transaction() as db:
        await db.execute("UPDATE payments SET payment_id = $2 WHERE number = $1", invoice.number, payment)
    return {"bezahlt": payment}


class TriageResult(BaseModel):
    urgency: Literal["heute", "diese Woche", "bei Gelegenheit"]
    symptoms: list[str]
    advice: str = Field(description="ein, zwei Sätze; keine Diagnose, keine Dosierung")

    def __str__(self) -> str:
        return f"{self.advice} (Dringlichkeit: {self.urgency})"


# Prescriptions are a LangGraph graph that asks the doctor; only an answer `by` somebody of the practice counts.
async def decide(state: MessagesState, runtime: Runtime[RunContext]) -> Command[str]:
    unanswered = takewhile(lambda message: message.type == "human", reversed(state["messages"]))
    wish = " / ".join(reversed([each.text for each in unanswered if not each.text.startswith("<briefing>")]))
    if EMERGENCY.search(wish):
        return Command(goto=END, update={"messages": [("assistant", CALL_112)]})
    answer = interrupt({"message": f"Ihre Bitte liegt bei der Ärztin: „{wish}“", "wish": wish})
    if (doctor := runtime.context.tools.answered_by) is None:
        return Command(goto="decide")
    await end_session.ainvoke({})
    said = f"{doctor} hat " + ("das Rezept ausgestellt." if answer == "ja" else f"kein Rezept ausgestellt: {answer}")
    return Command(goto=END, update={"messages": [("assistant", said)]})


_, end_session = handover_tools()
graph = StateGraph(MessagesState, context_schema=RunContext).add_node("decide", decide).add_edge(START, "decide")
prescriptions = GraphAgent(name="rezepte", description="Rezepte bestellen", graph=graph.compile())
reception = Agent(
    name="empfang",
    description="Begrüßung, Fragen zur Praxis und alles, wofür sonst niemand da ist",
    instructions=f"{STYLE} Du bist der Empfang. Wofür jemand anderes da ist, übergib sofort.",
    briefing=known,
    tools=[remember_name],
    keeps_session=False,
    output_checks=[no_medicine],
)
booking = scheduling(time_zone="Europe/Berlin", language="German", lead_time=timedelta(hours=2))
accounts = Agent(
    name="buchhaltung",
    description="Rechnungen: was offen ist, und bezahlen",
    instructions=f"{STYLE} Du bist die Buchhaltung.",
    tools=[tool()(amount_due), pay_invoice],
    migrations=Migrations("rechnungen", package="rechnungen"),
)
triage = Agent(
    name="einschaetzung",
    description="Beschwerden einschätzen: wie dringend sie sind",
    instructions=f"{STYLE} Du schätzt ein, wie bald jemand in die Praxis kommen soll.",
    output=TriageResult,
    output_checks=[no_medicine],
    keeps_session=False,
)
kit = (reception, replace(booking, name="termine"), accounts, triage)
checked = [replace(agent, input_checks=[emergency]) for agent in kit]
texts = Texts(
    start_over="Gut, fangen wir von vorn an. Was kann ich für Sie tun?",
    stopped="Angehalten.",
    joined="Ein weiteres Gerät nimmt an diesem Gespräch teil.",
    yes="ja",
    no="nein",
    closed="Die Frage von vorhin hat sich erledigt.",
)
app = Moorline(Settings(start_over=frozenset({"von vorn"})), agents=[*checked, prescriptions], texts=texts)
